//! The guest that tells whether an accelerator works: one boot sector.
//!
//! Real mode alone proves nothing: some hosts emulate it instruction by instruction and fail on the
//! first exception of a 64-bit guest (seen on a KVM without hardware virtualisation, where this sector's
//! `int3` ends in "KVM internal error" while a real-mode sector passes). So it enters long mode with
//! paging, takes a thousand exceptions, reloads CR3 after each, and only then reports.

/// The port of QEMU's `isa-debug-exit`.
pub const EXIT_PORT: u16 = 0xf4;

/// QEMU's exit status for the value that the sector writes: `(0x10 << 1) | 1`.
pub const EXIT_STATUS: i32 = 0x21;

/// Code, assembled for 0000:7c00.
#[rustfmt::skip]
const CODE: &[u8] = &[
    0xfa,                                     // cli
    0x31, 0xc0,                               // xor ax, ax
    0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0,       // mov ds, ax; mov es, ax; mov ss, ax
    0xbc, 0x00, 0x7c,                         // mov sp, 0x7c00
    // Page tables at 0x1000..0x4000: zeroed, then one identity-mapped page of 2 MiB.
    0xbf, 0x00, 0x10,                         // mov di, 0x1000
    0xb9, 0x00, 0x18,                         // mov cx, 0x1800
    0xfc, 0xf3, 0xab,                         // cld; rep stosw
    0xc7, 0x06, 0x00, 0x10, 0x03, 0x20,       // mov word [0x1000], 0x2003
    0xc7, 0x06, 0x00, 0x20, 0x03, 0x30,       // mov word [0x2000], 0x3003
    0xc7, 0x06, 0x00, 0x30, 0x83, 0x00,       // mov word [0x3000], 0x0083
    // Long mode: CR3, CR4.PAE, EFER.LME, CR0.PG|PE.
    0x0f, 0x01, 0x16, 0xc8, 0x7c,             // lgdt [0x7cc8]
    0x66, 0xb8, 0x00, 0x10, 0x00, 0x00,       // mov eax, 0x1000
    0x0f, 0x22, 0xd8,                         // mov cr3, eax
    0x0f, 0x20, 0xe0, 0x0c, 0x20,             // mov eax, cr4; or al, 0x20
    0x0f, 0x22, 0xe0,                         // mov cr4, eax
    0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0,       // mov ecx, 0xc0000080
    0x0f, 0x32, 0x80, 0xcc, 0x01, 0x0f, 0x30, // rdmsr; or ah, 1; wrmsr
    0x0f, 0x20, 0xc0,                         // mov eax, cr0
    0x66, 0x0d, 0x01, 0x00, 0x00, 0x80,       // or eax, 0x80000001
    0x0f, 0x22, 0xc0,                         // mov cr0, eax
    0xea, 0x5b, 0x7c, 0x08, 0x00,             // jmp 8:0x7c5b
    // 0x7c5b, 64-bit: flat data segments, a stack, an IDT whose gate 3 returns at once.
    0x66, 0xb8, 0x10, 0x00,                   // mov ax, 16
    0x8e, 0xd8, 0x8e, 0xd0, 0x8e, 0xc0,       // mov ds, eax; mov ss, eax; mov es, eax
    0xbc, 0x00, 0x7c, 0x00, 0x00,             // mov esp, 0x7c00
    0xbf, 0x30, 0x40, 0x00, 0x00,             // mov edi, 0x4030
    0x66, 0xc7, 0x07, 0xa9, 0x7c,             // mov word [rdi], 0x7ca9
    0xc7, 0x47, 0x02, 0x08, 0x00, 0x00, 0x8e, // mov dword [rdi+2], 0x8e000008
    0x66, 0xc7, 0x47, 0x06, 0x00, 0x00,       // mov word [rdi+6], 0
    0x48, 0xc7, 0x47, 0x08, 0, 0, 0, 0,       // mov qword [rdi+8], 0
    0x0f, 0x01, 0x1c, 0x25, 0xce, 0x7c, 0, 0, // lidt [0x7cce]
    0xb9, 0xe8, 0x03, 0x00, 0x00,             // mov ecx, 1000
    0xcc,                                     // again: int3
    0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8,       // mov rax, cr3; mov cr3, rax
    0xe2, 0xf7,                               // loop again
    0x66, 0xba, 0xf4, 0x00,                   // mov dx, 0xf4
    0xb0, 0x10, 0xee,                         // mov al, 0x10; out dx, al
    0xf4, 0xeb, 0xfd,                         // hlt; jmp to it
    0x48, 0xcf,                               // 0x7ca9: iretq
    0, 0, 0, 0, 0,
    // 0x7cb0: descriptors: null, 64-bit code, data.
    0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0x9a, 0x20, 0,
    0, 0, 0, 0, 0, 0x92, 0, 0,
    0x17, 0x00, 0xb0, 0x7c, 0x00, 0x00,       // 0x7cc8: limit and base of the GDT
    0x3f, 0x00, 0x00, 0x40, 0, 0, 0, 0, 0, 0, // 0x7cce: limit and base of the IDT
];

/// The whole disk: one sector with the BIOS's signature.
pub fn image() -> [u8; 512] {
    let mut sector = [0; 512];
    sector[..CODE.len()].copy_from_slice(CODE);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_stand_where_the_code_looks_for_them() {
        let image = image();
        let at = |address: usize| &image[address - 0x7c00..];
        assert_eq!(at(0x7c5b)[..4], [0x66, 0xb8, 0x10, 0x00], "64-bit entry");
        assert_eq!(at(0x7ca9)[..2], [0x48, 0xcf], "exception handler");
        assert_eq!(at(0x7cc8)[..6], [0x17, 0, 0xb0, 0x7c, 0, 0], "GDT register");
        assert_eq!(at(0x7cce)[..4], [0x3f, 0, 0, 0x40], "IDT register");
        assert_eq!(image[510..], [0x55, 0xaa]);
    }
}
