//! Archives that the kernel unpacks as its first file system: cpio, format "newc".

use std::{collections::BTreeSet, fs, io, path::Path};

/// The kinds of entries, with the permissions that they get.
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;

/// An archive in the making.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Adds a folder, and those above it.
    pub(super) fn folder(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || self.folders.contains(path) {
            return;
        }
        self.above(path);
        self.folders.insert(path.to_owned());
        self.entry(path, FOLDER, &[]);
    }

    /// Adds a file, and the folders above it.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.above(path.trim_matches('/'));
        self.entry(path.trim_matches('/'), FILE, content);
    }

    /// Adds a copy of a program or library of this machine.
    pub(super) fn program(&mut self, path: &str, source: &Path) -> io::Result<()> {
        self.above(path.trim_matches('/'));
        self.entry(path.trim_matches('/'), PROGRAM, &fs::read(source)?);
        Ok(())
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn above(&mut self, path: &str) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (name_size, size) = (name.len() as u32 + 1, content.len() as u32);
        // Inode, mode, owner, group, links, time, size, device (two numbers), special device (two
        // numbers), size of the name with its NUL, check sum (unused).
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    /// Names and contents end at multiples of 4.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of the header at `at`, its name, and where its content is.
    fn header(bytes: &[u8], at: usize) -> ([u32; 13], &str, usize) {
        assert_eq!(&bytes[at..at + 6], b"070701");
        let field = |index: usize| {
            let start = at + 6 + 8 * index;
            let digits = std::str::from_utf8(&bytes[start..start + 8]).expect("digits");
            u32::from_str_radix(digits, 16).expect("digits")
        };
        let fields: [u32; 13] = std::array::from_fn(field);
        let name = at + 110;
        let end = name + fields[11] as usize;
        let text = std::str::from_utf8(&bytes[name..end - 1]).expect("a name");
        (fields, text, end.next_multiple_of(4))
    }

    #[test]
    fn entries_are_where_the_kernel_looks_for_them() {
        let mut archive = Archive::default();
        archive.file("/etc/a/name", b"12345");
        archive.file("/etc/other", b"");
        let bytes = archive.finish();
        let mut at = 0;
        let mut seen = Vec::new();
        while at < bytes.len() {
            let (fields, name, content) = header(&bytes, at);
            let size = fields[6] as usize;
            seen.push((name.to_owned(), fields[1], bytes[content..content + size].to_vec()));
            at = (content + size).next_multiple_of(4);
        }
        let expected = [
            ("etc", FOLDER, &b""[..]),
            ("etc/a", FOLDER, b""),
            ("etc/a/name", FILE, b"12345"),
            ("etc/other", FILE, b""),
            ("TRAILER!!!", 0, b""),
        ];
        let expected: Vec<_> =
            expected.iter().map(|(n, m, c)| ((*n).to_owned(), *m, c.to_vec())).collect();
        assert_eq!(seen, expected);
    }
}
