//! Writes VMware's stream-optimized disks (VMware Virtual Disk Format 5.0): compressed grains in the order
//! of the disk, each with a marker, so that whoever imports one never seeks. No reading.
//!
//! QEMU's converter leaves out the end of the stream and takes a content ID by chance, which vSphere and
//! ovftool refuse or find different each time.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::thread;

use flate2::Compression;
use flate2::write::ZlibEncoder;

const SECTOR: u64 = 512;
/// 64 KiB.
const GRAIN_SECTORS: u64 = 128;
const GRAIN: usize = (GRAIN_SECTORS * SECTOR) as usize;
/// Grains of one table, which has four bytes for each: four sectors.
const TABLE_GRAINS: u64 = 512;
/// The header's and the descriptor's room: the first grain is aligned as grains are.
const OVERHEAD_SECTORS: u64 = 128;
const DESCRIPTOR_SECTORS: u64 = 20;
/// Lines end as the header says, grains are compressed, markers tell what follows.
const FLAGS: u32 = 1 | 1 << 16 | 1 << 17;
/// The grain directory's place is told by the footer.
const AT_END: u64 = u64::MAX;
const DEFLATE: u16 = 1;
/// Grains that are compressed by one thread before they are written.
const BATCH: usize = 64;

#[derive(Clone, Copy)]
enum Marker {
    EndOfStream = 0,
    GrainTable = 1,
    GrainDirectory = 2,
    Footer = 3,
}

/// Writes the image of the raw disk `from` to `to`. The disk has whole sectors.
pub fn convert(from: &Path, to: &Path) -> io::Result<()> {
    let disk = File::open(from)?;
    let bytes = disk.metadata()?.len();
    let out = BufWriter::with_capacity(1 << 20, File::create(to)?);
    write(BufReader::with_capacity(1 << 20, disk), bytes, out)
}

fn write(mut disk: impl Read, bytes: u64, out: impl Write) -> io::Result<()> {
    let sectors = bytes.div_ceil(SECTOR);
    let mut out = Stream { out, sector: 0 };
    out.put(&header(sectors, AT_END))?;
    let mut overhead = descriptor(sectors).into_bytes();
    overhead.resize(((OVERHEAD_SECTORS - 1) * SECTOR) as usize, 0);
    out.put(&overhead)?;

    let grains = sectors.div_ceil(GRAIN_SECTORS);
    let mut directory = Vec::new();
    let mut table = Vec::new();
    let mut next = 0;
    while next < grains {
        let count = (grains - next).min(TABLE_GRAINS - next % TABLE_GRAINS);
        let mut batch = Vec::new();
        for _ in 0..count.min((BATCH * threads()) as u64) {
            let mut grain = Vec::with_capacity(GRAIN);
            disk.by_ref().take(GRAIN as u64).read_to_end(&mut grain)?;
            grain.resize(GRAIN, 0);
            batch.push(grain);
        }
        for grain in compress(&batch)? {
            let place = match grain {
                Some(data) => out.grain(next * GRAIN_SECTORS, &data)?,
                None => 0,
            };
            table.push(place);
            next += 1;
        }
        if next % TABLE_GRAINS == 0 || next == grains {
            table.resize(TABLE_GRAINS as usize, 0);
            // A table of nothing but holes is none.
            let place = match table.iter().any(|place| *place != 0) {
                true => out.numbers(Marker::GrainTable, &table)?,
                false => 0,
            };
            directory.push(place);
            table.clear();
        }
    }
    let place = out.numbers(Marker::GrainDirectory, &directory)?;
    out.marker(Marker::Footer, 1)?;
    out.put(&header(sectors, place.into()))?;
    out.marker(Marker::EndOfStream, 0)?;
    out.out.flush()
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Each grain compressed; nothing for one of zeros.
fn compress(grains: &[Vec<u8>]) -> io::Result<Vec<Option<Vec<u8>>>> {
    let share = grains.len().div_ceil(threads()).max(1);
    let one = |grain: &Vec<u8>| -> io::Result<Option<Vec<u8>>> {
        if grain.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(grain)?;
        encoder.finish().map(Some)
    };
    thread::scope(|scope| {
        let shares: Vec<_> = grains
            .chunks(share)
            .map(|share| scope.spawn(move || share.iter().map(one).collect::<io::Result<Vec<_>>>()))
            .collect();
        let mut all = Vec::with_capacity(grains.len());
        for share in shares {
            all.extend(share.join().expect("a compressor does not panic")?);
        }
        Ok(all)
    })
}

/// What was written so far, in sectors.
struct Stream<W> {
    out: W,
    sector: u64,
}

impl<W: Write> Stream<W> {
    /// Writes bytes and fills the last sector; where they begin.
    fn put(&mut self, bytes: &[u8]) -> io::Result<u32> {
        let begin = u32::try_from(self.sector)
            .map_err(|_| io::Error::other("a stream-optimized disk ends at 2 TiB"))?;
        self.out.write_all(bytes)?;
        let sectors = (bytes.len() as u64).div_ceil(SECTOR);
        let rest = sectors * SECTOR - bytes.len() as u64;
        self.out.write_all(&[0; SECTOR as usize][..rest as usize])?;
        self.sector += sectors;
        Ok(begin)
    }

    /// A grain of the disk's sector `at`; where its marker lies.
    fn grain(&mut self, at: u64, data: &[u8]) -> io::Result<u32> {
        let mut bytes = Vec::with_capacity(12 + data.len());
        bytes.extend_from_slice(&at.to_le_bytes());
        bytes.extend_from_slice(&(data.len() as u32).to_le_bytes());
        bytes.extend_from_slice(data);
        self.put(&bytes)
    }

    fn marker(&mut self, kind: Marker, sectors: u64) -> io::Result<()> {
        let mut marker = [0; SECTOR as usize];
        marker[..8].copy_from_slice(&sectors.to_le_bytes());
        marker[12..16].copy_from_slice(&(kind as u32).to_le_bytes());
        self.put(&marker).map(drop)
    }

    /// Sectors of numbers behind their marker; where they begin.
    fn numbers(&mut self, kind: Marker, numbers: &[u32]) -> io::Result<u32> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.marker(kind, (bytes.len() as u64).div_ceil(SECTOR))?;
        self.put(&bytes)
    }
}

fn header(sectors: u64, directory: u64) -> [u8; SECTOR as usize] {
    let mut header = [0; SECTOR as usize];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"KDMV");
    put(4, &3u32.to_le_bytes());
    put(8, &FLAGS.to_le_bytes());
    put(12, &sectors.to_le_bytes());
    put(20, &GRAIN_SECTORS.to_le_bytes());
    put(28, &1u64.to_le_bytes());
    put(36, &DESCRIPTOR_SECTORS.to_le_bytes());
    put(44, &(TABLE_GRAINS as u32).to_le_bytes());
    // No second directory.
    put(56, &directory.to_le_bytes());
    put(64, &OVERHEAD_SECTORS.to_le_bytes());
    // Finds out transfers that change the ends of lines.
    put(73, b"\n \r\n");
    put(77, &DEFLATE.to_le_bytes());
    header
}

/// The content ID and the extent's name are fixed: equal disks are to be equal files.
fn descriptor(sectors: u64) -> String {
    // As VMware's own tools give it to disks on SCSI.
    let (heads, per_track) = (255, 63);
    let cylinders = sectors.div_ceil(heads * per_track).min(65535);
    format!(
        "# Disk DescriptorFile\n\
         version=1\n\
         CID=fffffffe\n\
         parentCID=ffffffff\n\
         createType=\"streamOptimized\"\n\
         \n\
         # Extent description\n\
         RW {sectors} SPARSE \"disk.vmdk\"\n\
         \n\
         # The Disk Data Base\n\
         #DDB\n\
         \n\
         ddb.adapterType = \"lsilogic\"\n\
         ddb.geometry.cylinders = \"{cylinders}\"\n\
         ddb.geometry.heads = \"{heads}\"\n\
         ddb.geometry.sectors = \"{per_track}\"\n\
         ddb.virtualHWVersion = \"15\"\n"
    )
}

#[cfg(test)]
mod tests {
    use flate2::read::ZlibDecoder;
    use proptest::prelude::*;

    use super::*;
    use crate::disk::testing;

    fn image(disk: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write(disk, disk.len() as u64, &mut out).unwrap();
        out
    }

    fn u32_at(image: &[u8], at: u64) -> u32 {
        let at = at as usize;
        u32::from_le_bytes(image[at..at + 4].try_into().unwrap())
    }

    fn u64_at(image: &[u8], at: u64) -> u64 {
        let at = at as usize;
        u64::from_le_bytes(image[at..at + 8].try_into().unwrap())
    }

    /// Reads an image by its directory, as a machine does that has it on a disk.
    fn read(image: &[u8]) -> Vec<u8> {
        let end = image.len() as u64;
        assert_eq!(end % SECTOR, 0);
        assert_eq!(image[(end - SECTOR) as usize..], [0; 512], "end of stream");
        let footer = end - 2 * SECTOR;
        assert_eq!(u32_at(image, footer - SECTOR + 12), Marker::Footer as u32);
        assert_eq!(&image[footer as usize..footer as usize + 4], b"KDMV");
        assert_eq!(u64_at(image, 56), AT_END);
        let (capacity, directory) = (u64_at(image, 12), u64_at(image, footer + 56));
        let mut disk = vec![0; (capacity * SECTOR) as usize];
        for grain in 0..capacity.div_ceil(GRAIN_SECTORS) {
            let table = directory * SECTOR + grain / TABLE_GRAINS * 4;
            let table = u64::from(u32_at(image, table)) * SECTOR;
            if table == 0 {
                continue;
            }
            let place = u64::from(u32_at(image, table + grain % TABLE_GRAINS * 4)) * SECTOR;
            if place == 0 {
                continue;
            }
            assert_eq!(u64_at(image, place), grain * GRAIN_SECTORS);
            let (from, size) = (place as usize + 12, u32_at(image, place + 8) as usize);
            let mut data = Vec::new();
            ZlibDecoder::new(&image[from..from + size])
                .read_to_end(&mut data)
                .unwrap();
            assert_eq!(data.len(), GRAIN);
            let at = grain as usize * GRAIN;
            let length = GRAIN.min(disk.len() - at);
            disk[at..at + length].copy_from_slice(&data[..length]);
            assert!(data[length..].iter().all(|byte| *byte == 0));
        }
        disk
    }

    /// Reads an image from its beginning to its end, as an importer does that hears it once. The kinds of
    /// the markers, a grain as `g`.
    fn stream(image: &[u8]) -> String {
        let mut kinds = String::new();
        let mut at = OVERHEAD_SECTORS * SECTOR;
        let mut last = None;
        loop {
            let (value, size) = (u64_at(image, at), u32_at(image, at + 8));
            if size > 0 {
                assert!(last.is_none_or(|last| last < value), "grains in order");
                last = Some(value);
                at += (12 + u64::from(size)).next_multiple_of(SECTOR);
                kinds.push('g');
                continue;
            }
            let kind = u32_at(image, at + 12);
            at += SECTOR * (1 + value);
            kinds.push(char::from_digit(kind, 10).unwrap());
            if kind == Marker::EndOfStream as u32 {
                assert_eq!(at, image.len() as u64);
                return kinds;
            }
        }
    }

    #[test]
    fn a_stream_has_its_markers_in_order() {
        let mut disk = vec![0; GRAIN * (TABLE_GRAINS as usize + 2)];
        assert_eq!(stream(&image(&disk)), "230");
        disk[7] = 1;
        disk[GRAIN * 3] = 2;
        assert_eq!(stream(&image(&disk)), "gg1230");
        let last = disk.len() - 1;
        disk[last] = 3;
        assert_eq!(stream(&image(&disk)), "gg1g1230");
        assert!(read(&image(&disk)) == disk);
    }

    #[test]
    fn the_descriptor_has_its_room() {
        let text = descriptor(u64::from(u32::MAX));
        assert!((text.len() as u64) < DESCRIPTOR_SECTORS * SECTOR);
        let image = image(&[0; 512]);
        assert_eq!(image[512..512 + 21], *b"# Disk DescriptorFile");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn any_disk_reads_back(disk in testing::disks()) {
            let image = image(&disk);
            stream(&image);
            prop_assert_eq!(read(&image), disk);
        }
    }
}
