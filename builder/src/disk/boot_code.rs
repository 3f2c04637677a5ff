//! The boot code of the first sector, for machines with a BIOS.
//!
//! It loads the first sector of one partition, whose place is written into it, and jumps there
//! with DS:SI on a partition table entry of the classic kind: syslinux's boot sector reads the
//! partition's start from that. It does not read the GPT. On a disk with two slots the table of slots says
//! which partition; where a trial is pending it is the other one, and the table is changed before, so that
//! this happens once: a table that cannot be written to begins no trial. A disk error is tried four times; then
//! the first partition, and if that fails as well it is told on the screen.

use super::layout::Extent;
use super::slots::TABLE_LBA;

/// Room for code before the disk signature and the partition table.
pub const CODE_BYTES: usize = 440;

/// The code copies itself from 0x7c00 to 0x600, because the next sector goes to 0x7c00.
const CODE: [u8; 0xb5] = [
    0xfa, // cli
    0x31, 0xc0, // xor ax, ax
    0x8e, 0xd0, // mov ss, ax
    0xbc, 0x00, 0x7c, // mov sp, 0x7c00
    0x8e, 0xd8, // mov ds, ax
    0x8e, 0xc0, // mov es, ax
    0xfc, // cld
    0xbe, 0x00, 0x7c, // mov si, 0x7c00
    0xbf, 0x00, 0x06, // mov di, 0x600
    0xb9, 0x00, 0x01, // mov cx, 256
    0xf3, 0xa5, // rep movsw
    0xea, 0x1d, 0x06, 0x00, 0x00, // jmp 0:0x61d
    // 0x61d: read the table; without one, the first partition
    0xfb, // sti
    0xbf, 0x80, 0x07, // mov di, first
    0xbe, 0x60, 0x07, // mov si, table_packet
    0xb4, 0x42, // mov ah, 0x42 (extended read)
    0xe8, 0x78, 0x00, // call disk
    0x72, 0x38, // jc load
    0x66, 0x81, 0x3e, 0x00, 0x08, 0x57, 0x4f, 0x57, 0x53, // cmp dword [0x800], "WOWS"
    0x75, 0x2d, // jne load
    0x66, 0x81, 0x3e, 0x04, 0x08, 0x4c, 0x4f, 0x54, 0x53, // cmp dword [0x804], "LOTS"
    0x75, 0x22, // jne load
    0x8a, 0x1e, 0x09, 0x08, // mov bl, [0x809] (the slot that is booted)
    0x80, 0x3e, 0x0a, 0x08, 0x01, // cmp byte [0x80a], 1 (a trial is pending)
    0x75, 0x0f, // jne chosen
    // a trial: the other slot, once the disk says that it has begun
    0xfe, 0x06, 0x0a, 0x08, // inc byte [0x80a]
    0xb8, 0x00, 0x43, // mov ax, 0x4300 (extended write)
    0xe8, 0x4b, 0x00, // call disk
    0x72, 0x03, // jc chosen
    0x80, 0xf3, 0x01, // xor bl, 1
    // chosen:
    0xf6, 0xc3, 0x01, // test bl, 1
    0x74, 0x03, // jz load
    0xbf, 0x90, 0x07, // mov di, second
    // load: the boot sector of the partition at DI
    0x66, 0x8b, 0x45, 0x08, // mov eax, [di + 8]
    0xbe, 0x70, 0x07, // mov si, boot_packet
    0x66, 0x89, 0x44, 0x08, // mov [si + 8], eax
    0xb4, 0x42, // mov ah, 0x42
    0xe8, 0x2e, 0x00, // call disk
    0x72, 0x0f, // jc bad
    0x81, 0x3e, 0xfe, 0x7d, 0x55, 0xaa, // cmp word [0x7dfe], 0xaa55
    0x75, 0x07, // jne bad
    0x89, 0xfe, // mov si, di
    0xea, 0x00, 0x7c, 0x00, 0x00, // jmp 0:0x7c00
    // bad: the first partition, unless it was that
    0x81, 0xff, 0x80, 0x07, // cmp di, first
    0xbf, 0x80, 0x07, // mov di, first
    0x75, 0xd6, // jne load
    0xbe, 0xb5, 0x06, // mov si, message
    // print:
    0xac, // lodsb
    0x84, 0xc0, // test al, al
    0x74, 0x09, // jz halt
    0xb4, 0x0e, // mov ah, 0x0e
    0xbb, 0x07, 0x00, // mov bx, 7
    0xcd, 0x10, // int 0x10 (write a character)
    0xeb, 0xf2, // jmp print
    // halt:
    0xf4, // hlt
    0xeb, 0xfd, // jmp halt
    // disk: AH's work by the packet at SI, tried four times; the BIOS gave the drive in DL
    0xb1, 0x04, // mov cl, 4
    0x60, // pusha
    0xcd, 0x13, // int 0x13
    0x61, // popa
    0x73, 0x0b, // jnc done
    0x60, // pusha
    0x31, 0xc0, // xor ax, ax
    0xcd, 0x13, // int 0x13 (reset the drive)
    0x61, // popa
    0xfe, 0xc9, // dec cl
    0x75, 0xf0, // jnz again
    0xf9, // stc
    // done:
    0xc3, // ret
];
const MESSAGE: &[u8] = b"wow: cannot read the boot partition\r\n\0";
/// The disk address packet of the table, which is read to 0x800.
const TABLE_PACKET: usize = 0x160;
/// That of a boot sector; its place is filled in by the code.
const BOOT_PACKET: usize = 0x170;
/// The partition table entries handed on, that of the first slot and that of the second.
const ENTRIES: [usize; 2] = [0x180, 0x190];

/// The code for a boot partition, and another where there is a second slot.
pub fn boot_code(boot: Extent, second: Option<Extent>) -> [u8; CODE_BYTES] {
    let mut code = [0; CODE_BYTES];
    let mut put = |at: usize, bytes: &[u8]| code[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &CODE);
    put(CODE.len(), MESSAGE);
    // Size of the packet, one sector, and to where.
    put(TABLE_PACKET, &[0x10, 0, 1, 0, 0x00, 0x08, 0, 0]);
    put(TABLE_PACKET + 8, &TABLE_LBA.to_le_bytes());
    put(BOOT_PACKET, &[0x10, 0, 1, 0, 0x00, 0x7c, 0, 0]);
    for (at, place) in ENTRIES.into_iter().zip([boot, second.unwrap_or(boot)]) {
        // Active, an EFI system partition, cylinders and heads out of range: only the LBA counts.
        put(at, &[0x80, 0xfe, 0xff, 0xff, 0xef, 0xfe, 0xff, 0xff]);
        put(at + 8, &clamp(place.first).to_le_bytes());
        put(at + 12, &clamp(place.sectors()).to_le_bytes());
    }
    code
}

/// A number of sectors as old tables hold it.
pub(super) fn clamp(sectors: u64) -> u32 {
    u32::try_from(sectors).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: Extent = Extent {
        first: 2048,
        last: 22_047,
    };

    #[test]
    fn the_code_ends_where_its_data_begins_and_names_its_places() {
        assert!(CODE.len() + MESSAGE.len() <= TABLE_PACKET);
        let names = |at: usize, place: usize| {
            assert_eq!(CODE[at..at + 2], (0x600 + place as u16).to_le_bytes());
        };
        names(0x1f, ENTRIES[0]);
        names(0x22, TABLE_PACKET);
        names(0x61, ENTRIES[1]);
        names(0x68, BOOT_PACKET);
        names(0x86, ENTRIES[0]);
        names(0x89, ENTRIES[0]);
        names(0x8e, CODE.len());
    }

    #[test]
    fn the_places_are_written_in() {
        let second = Extent {
            first: 30_000,
            last: 40_000,
        };
        let code = boot_code(BOOT, Some(second));
        assert_eq!(
            code[TABLE_PACKET + 8..TABLE_PACKET + 16],
            TABLE_LBA.to_le_bytes()
        );
        for (at, place) in ENTRIES.into_iter().zip([BOOT, second]) {
            assert_eq!(code[at + 8..at + 12], (place.first as u32).to_le_bytes());
            assert_eq!(
                code[at + 12..at + 16],
                (place.sectors() as u32).to_le_bytes()
            );
        }
        // Without a second slot, whatever the table's sector holds leads to the same.
        let code = boot_code(BOOT, None);
        let [first, second] = ENTRIES.map(|at| &code[at..at + 16]);
        assert_eq!(first, second);
    }
}
