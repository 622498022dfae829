//! One file of spilled output: records of a stream byte, a length, an offset and the data.
//!
//! A file that was cut by a crash is read up to its last whole record. All calls block. Called by the log only.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lictor_proto::v1::OutputStream;
use rustix::fs::OFlags;

use super::Piece;

#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    first: u64,
    end: u64,
    /// Position in the file behind the last whole record.
    size: u64,
    /// Where the last read ended: (offset in the log, position in the file of the record that holds it).
    cursor: (u64, u64),
}

impl Segment {
    pub(super) fn create(directory: &Path, prefix: &str, first: u64) -> io::Result<Self> {
        let path = directory.join(format!("{prefix}{first:020}.log"));
        // An old file of the same name is a leftover of the same task and holds the same bytes.
        let file = options().create(true).truncate(true).mode(0o600).open(&path)?;
        Ok(Self { path, file, first, end: first, size: 0, cursor: (first, 0) })
    }

    /// Nothing when it holds no whole record.
    pub(super) fn reopen(path: PathBuf) -> io::Result<Option<Self>> {
        let file = options().open(&path)?;
        let length = file.metadata()?.len();
        let mut reader = BufReader::new(&file);
        let (mut first, mut end, mut size) = (None, 0, 0);
        let mut header = [0; HEADER];
        while size + HEADER as u64 <= length {
            reader.read_exact(&mut header)?;
            // What a crash of the machine left of a page that was not written.
            let Ok(record) = Header::parse(&header) else { break };
            if size + record.size() > length || (first.is_some() && record.offset != end) {
                break;
            }
            reader.seek_relative(i64::from(record.length))?;
            first.get_or_insert(record.offset);
            end = record.end();
            size += record.size();
        }
        drop(reader);
        Ok(first.map(|first| Self { path, file, first, end, size, cursor: (first, 0) }))
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes of output in it.
    pub(super) fn len(&self) -> u64 {
        self.end - self.first
    }

    pub(super) fn append(&mut self, piece: &Piece) -> io::Result<()> {
        let length = u32::try_from(piece.data.len()).map_err(io::Error::other)?;
        let header = Header { stream: piece.stream, length, offset: piece.offset };
        // A torn record from a failed attempt lies behind `size` and is overwritten by the next.
        self.file.write_all_at(&header.to_bytes(), self.size)?;
        self.file.write_all_at(&piece.data, self.size + HEADER as u64)?;
        self.size += header.size();
        self.end = header.end();
        Ok(())
    }

    pub(super) fn read(&mut self, offset: u64, most: usize) -> io::Result<Option<Piece>> {
        let offset = offset.max(self.first);
        let mut position = if self.cursor.0 <= offset { self.cursor.1 } else { 0 };
        let mut bytes = [0; HEADER];
        while position < self.size {
            self.file.read_exact_at(&mut bytes, position)?;
            let record = Header::parse(&bytes)?;
            if record.end() <= offset {
                position += record.size();
                continue;
            }
            let skip = offset.saturating_sub(record.offset);
            let rest = usize::try_from(u64::from(record.length) - skip).unwrap_or(usize::MAX);
            let mut data = vec![0; rest.min(most)];
            self.file.read_exact_at(&mut data, position + HEADER as u64 + skip)?;
            self.cursor = (record.offset, position);
            return Ok(Some(Piece { offset: record.offset + skip, stream: record.stream, data: Bytes::from(data) }));
        }
        Ok(None)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    pub(super) fn delete(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

/// For reading and writing. A link would lead what is written, or the truncation, to a file of somebody else's choice.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

struct Header {
    stream: OutputStream,
    length: u32,
    offset: u64,
}

impl Header {
    fn parse(bytes: &[u8; HEADER]) -> io::Result<Self> {
        let [stream, l0, l1, l2, l3, offset @ ..] = *bytes;
        let stream = OutputStream::try_from(i32::from(stream)).map_err(io::Error::other)?;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        if length as usize > lictor_proto::MAX_OUTPUT_CHUNK_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a record of spilled output is too long"));
        }
        Ok(Self { stream, length, offset: u64::from_le_bytes(offset) })
    }

    fn to_bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = self.stream as u8;
        bytes[1..5].copy_from_slice(&self.length.to_le_bytes());
        bytes[5..].copy_from_slice(&self.offset.to_le_bytes());
        bytes
    }

    fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.length))
    }

    fn size(&self) -> u64 {
        HEADER as u64 + u64::from(self.length)
    }
}

const HEADER: usize = 13;
