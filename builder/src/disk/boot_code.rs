//! The boot code of the first sector, for machines with a BIOS.
//!
//! It loads the first sector of one partition, whose place is written into it, and jumps there
//! with DS:SI on a partition table entry of the classic kind: syslinux's boot sector reads the
//! partition's start from that. It does not read the GPT. A disk error is tried four times, then
//! told on the screen.

/// Room for code before the disk signature and the partition table.
pub const CODE_BYTES: usize = 440;

/// The code copies itself from 0x7c00 to 0x600, because the next sector goes to 0x7c00.
const CODE: [u8; 0x5d] = [
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
    // 0x61d:
    0xfb, // sti
    0xb1, 0x04, // mov cl, 4
    // 0x620: try to read; the BIOS gave the drive in DL
    0x51, // push cx
    0x52, // push dx
    0xbe, 0xa0, 0x06, // mov si, packet
    0xb4, 0x42, // mov ah, 0x42
    0xcd, 0x13, // int 0x13 (extended read)
    0x5a, // pop dx
    0x59, // pop cx
    0x73, 0x0c, // jnc loaded
    0x52, // push dx
    0x31, 0xc0, // xor ax, ax
    0xcd, 0x13, // int 0x13 (reset the drive)
    0x5a, // pop dx
    0xfe, 0xc9, // dec cl
    0x75, 0xe9, // jnz 0x620
    0xeb, 0x10, // jmp fail
    // loaded:
    0x81, 0x3e, 0xfe, 0x7d, 0x55, 0xaa, // cmp word [0x7dfe], 0xaa55
    0x75, 0x08, // jne fail
    0xbe, 0xb0, 0x06, // mov si, entry
    0xea, 0x00, 0x7c, 0x00, 0x00, // jmp 0:0x7c00
    // fail:
    0xbe, 0x5d, 0x06, // mov si, message
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
];
const MESSAGE: &[u8] = b"wow: cannot read the boot partition\r\n\0";
/// The disk address packet of the read.
const PACKET: usize = 0xa0;
/// The partition table entry handed on.
const ENTRY: usize = 0xb0;

/// The code for a partition of `sectors` from `first`.
pub fn boot_code(first: u32, sectors: u32) -> [u8; CODE_BYTES] {
    let mut code = [0; CODE_BYTES];
    let mut put = |at: usize, bytes: &[u8]| code[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &CODE);
    put(CODE.len(), MESSAGE);
    // Size of the packet, one sector, to 0:0x7c00.
    put(PACKET, &[0x10, 0, 1, 0, 0x00, 0x7c, 0, 0]);
    put(PACKET + 8, &u64::from(first).to_le_bytes());
    // Active, an EFI system partition, cylinders and heads out of range: only the LBA counts.
    put(ENTRY, &[0x80, 0xfe, 0xff, 0xff, 0xef, 0xfe, 0xff, 0xff]);
    put(ENTRY + 8, &first.to_le_bytes());
    put(ENTRY + 12, &sectors.to_le_bytes());
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_ends_where_its_data_begins() {
        assert!(CODE.len() + MESSAGE.len() <= PACKET);
        // `mov si, message` names the byte after the code.
        assert_eq!(CODE[0x4a..0x4c], (0x600 + CODE.len() as u16).to_le_bytes());
        assert_eq!(CODE[0x23..0x25], (0x600 + PACKET as u16).to_le_bytes());
        assert_eq!(CODE[0x42..0x44], (0x600 + ENTRY as u16).to_le_bytes());
    }

    #[test]
    fn the_partitions_place_is_written_in_twice() {
        let code = boot_code(2048, 20_000);
        assert_eq!(code[PACKET + 8..PACKET + 16], 2048u64.to_le_bytes());
        assert_eq!(code[ENTRY + 8..ENTRY + 12], 2048u32.to_le_bytes());
        assert_eq!(code[ENTRY + 12..ENTRY + 16], 20_000u32.to_le_bytes());
    }
}
