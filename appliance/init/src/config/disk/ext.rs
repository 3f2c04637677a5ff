//! ext2, ext3 and ext4, read only, as the kernel's Documentation/filesystems/ext4 describes them: the
//! superblock, the root directory, and files by block lists or extents. A journal is not replayed: a disk that
//! was written with the machine's power cut may show an older file.

use super::volume::{
    DIRECTORY_BYTES_MAX, Fault, Medium, label_of, read_if_there, read_vec, u16_at, u32_at,
};

const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xef53;
const ROOT_INODE: u32 = 2;
/// Features that change where things are: compression, a journal device, block groups' descriptors
/// spread out, inline data, encryption.
const NOT_UNDERSTOOD: u32 = 0x1 | 0x8 | 0x10 | 0x8000 | 0x10000;
const WIDE: u32 = 0x80;
const FLAG_EXTENTS: u32 = 0x0008_0000;
const KIND_MASK: u16 = 0xf000;
const KIND_FILE: u16 = 0x8000;
const KIND_DIRECTORY: u16 = 0x4000;
const EXTENT_MAGIC: u16 = 0xf30a;
/// The kernel's own limit.
const EXTENT_DEPTH_MAX: u16 = 5;
const DIRECT_BLOCKS: usize = 12;

/// An ext file system.
pub(super) struct Ext<'m> {
    medium: &'m dyn Medium,
    block_bytes: u64,
    inodes: u32,
    inodes_a_group: u32,
    inode_bytes: u64,
    /// Where the groups' descriptors begin, and the length of one.
    descriptors: u64,
    descriptor_bytes: u64,
    label: String,
}

struct Inode {
    kind: u16,
    bytes: u64,
    extents: bool,
    /// Block numbers, or the extents' root.
    map: Vec<u8>,
}

impl<'m> Ext<'m> {
    /// `None` where there is no superblock.
    pub(super) fn open(medium: &'m dyn Medium) -> Result<Option<Self>, Fault> {
        let block = read_if_there::<1024>(medium, SUPERBLOCK)?;
        let Some(block) = block.filter(|block| u16_at(block, 0x38) == MAGIC) else {
            return Ok(None);
        };
        let incompatible = u32_at(&block, 0x60);
        if incompatible & NOT_UNDERSTOOD != 0 {
            return Err(Fault::Damaged(
                "it uses features of ext4 that are not understood here",
            ));
        }
        let log_block = u32_at(&block, 0x18);
        if log_block > 6 {
            return Err(Fault::Damaged("its blocks are longer than 64 KiB"));
        }
        let block_bytes = 1024 << log_block;
        let first_data_block = u64::from(u32_at(&block, 0x14));
        let old = u32_at(&block, 0x4c) == 0;
        let inode_bytes = match old {
            true => 128,
            false => u64::from(u16_at(&block, 0x58)),
        };
        let descriptor_bytes = match incompatible & WIDE {
            0 => 32,
            _ => u64::from(u16_at(&block, 0xfe)),
        };
        let ext = Ext {
            medium,
            block_bytes,
            inodes: u32_at(&block, 0),
            inodes_a_group: u32_at(&block, 0x28),
            inode_bytes,
            descriptors: (first_data_block + 1) * block_bytes,
            descriptor_bytes,
            label: label_of(&block[0x78..0x88]),
        };
        let sound = ext.inodes_a_group > 0
            && (128..=block_bytes).contains(&inode_bytes)
            && (32..=1024).contains(&descriptor_bytes);
        match sound {
            true => Ok(Some(ext)),
            false => Err(Fault::Damaged("its superblock makes no sense")),
        }
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn read(&self, wanted: &str, most: usize) -> Result<Option<Vec<u8>>, Fault> {
        let root = self.inode(ROOT_INODE)?;
        if root.kind != KIND_DIRECTORY {
            return Err(Fault::Damaged("its root is no directory"));
        }
        let length = usize::try_from(root.bytes).unwrap_or(usize::MAX);
        let directory = self.content(&root, length.min(DIRECTORY_BYTES_MAX))?;
        let Some(number) = find(&directory, self.block_bytes, wanted.as_bytes()) else {
            return Ok(None);
        };
        let file = self.inode(number)?;
        if file.kind != KIND_FILE {
            return Ok(None);
        }
        let length = usize::try_from(file.bytes).unwrap_or(usize::MAX);
        if length > most {
            return Err(Fault::TooLong(most));
        }
        self.content(&file, length).map(Some)
    }

    fn inode(&self, number: u32) -> Result<Inode, Fault> {
        let Some(index) = number.checked_sub(1).filter(|_| number <= self.inodes) else {
            return Err(Fault::Damaged("an inode's number is out of range"));
        };
        let (group, index) = (index / self.inodes_a_group, index % self.inodes_a_group);
        let at = self.descriptors + u64::from(group) * self.descriptor_bytes;
        let descriptor = read_vec(self.medium, at, 64.min(self.descriptor_bytes as usize))?;
        let table = u64::from(u32_at(&descriptor, 8)) | u64::from(u32_at(&descriptor, 0x28)) << 32;
        let at = self.place(table)? + u64::from(index) * self.inode_bytes;
        let inode = read_vec(self.medium, at, 128)?;
        Ok(Inode {
            kind: u16_at(&inode, 0) & KIND_MASK,
            bytes: u64::from(u32_at(&inode, 4)) | u64::from(u32_at(&inode, 0x6c)) << 32,
            extents: u32_at(&inode, 0x20) & FLAG_EXTENTS != 0,
            map: inode[0x28..0x64].to_vec(),
        })
    }

    /// The first `length` bytes of a file; the caller has bounded them.
    fn content(&self, inode: &Inode, length: usize) -> Result<Vec<u8>, Fault> {
        let mut content = Vec::with_capacity(length);
        let mut number = 0;
        while content.len() < length {
            let part = (length - content.len()).min(self.block_bytes as usize);
            match self.block_of(inode, number)? {
                0 => content.resize(content.len() + part, 0),
                block => content.extend(read_vec(self.medium, self.place(block)?, part)?),
            }
            number += 1;
        }
        Ok(content)
    }

    /// Where a block lies on the disk.
    fn place(&self, block: u64) -> Result<u64, Fault> {
        let place = block.checked_mul(self.block_bytes);
        // Below half of what 64 bits hold, so that offsets within cannot overflow.
        let place = place.filter(|place| *place < u64::MAX / 2);
        place.ok_or(Fault::Damaged("a block's number is out of range"))
    }

    /// The disk's block that holds a file's block; 0 for a hole.
    fn block_of(&self, inode: &Inode, number: u32) -> Result<u64, Fault> {
        if inode.extents {
            return self.by_extents(inode.map.clone(), number);
        }
        let index = number as usize;
        if index < DIRECT_BLOCKS {
            return Ok(u32_at(&inode.map, index * 4).into());
        }
        let index = index - DIRECT_BLOCKS;
        // One list of blocks more: with blocks of 1 KiB it leads to 268 KiB, with others further.
        if index >= self.block_bytes as usize / 4 {
            return Err(Fault::Damaged("a small file has too many blocks"));
        }
        match u32_at(&inode.map, DIRECT_BLOCKS * 4) {
            0 => Ok(0),
            list => {
                let at = self.place(list.into())? + index as u64 * 4;
                Ok(u32_at(&read_vec(self.medium, at, 4)?, 0).into())
            }
        }
    }

    fn by_extents(&self, mut node: Vec<u8>, number: u32) -> Result<u64, Fault> {
        for _ in 0..=EXTENT_DEPTH_MAX {
            if u16_at(&node, 0) != EXTENT_MAGIC {
                return Err(Fault::Damaged("a tree of extents is broken"));
            }
            let count = usize::from(u16_at(&node, 2));
            let entries = node.chunks_exact(12).skip(1).take(count);
            let found = entries
                .take_while(|entry| u32_at(entry, 0) <= number)
                .last();
            let Some(entry) = found else {
                return Ok(0);
            };
            if u16_at(&node, 6) == 0 {
                let from = u32_at(entry, 0);
                let length = u16_at(entry, 4);
                // Longer ones are reserved and not yet written: zeroes.
                let unwritten = length > 0x8000;
                if unwritten || number - from >= u32::from(length) {
                    return Ok(0);
                }
                let start = u64::from(u16_at(entry, 6)) << 32 | u64::from(u32_at(entry, 8));
                return Ok(start + u64::from(number - from));
            }
            let child = u64::from(u16_at(entry, 8)) << 32 | u64::from(u32_at(entry, 4));
            node = read_vec(self.medium, self.place(child)?, self.block_bytes as usize)?;
        }
        Err(Fault::Damaged("a tree of extents is too deep"))
    }
}

/// The inode of a name. An index of a large directory looks like an empty entry, so it is passed over.
fn find(directory: &[u8], block_bytes: u64, wanted: &[u8]) -> Option<u32> {
    directory.chunks(block_bytes as usize).find_map(|block| {
        let mut rest = block;
        while rest.len() >= 8 {
            let length = usize::from(u16_at(rest, 4));
            let name = rest.get(8..8 + usize::from(rest[6]));
            if length < 8 || length > rest.len() {
                return None;
            }
            if u32_at(rest, 0) != 0 && name == Some(wanted) {
                return Some(u32_at(rest, 0));
            }
            rest = &rest[length..];
        }
        None
    })
}
