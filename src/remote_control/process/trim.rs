//! Cuts a file from its front while a process goes on appending to it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

/// How much is copied at a time where the file system cannot cut a file itself.
const COPY: usize = 64 * 1024;

/// Cuts a file that has grown beyond `limit` bytes down to about half of it, in place, and returns how many bytes were cut
/// from its front: every offset into it is smaller by that much. At most `cuttable` bytes are cut, so that what nobody has read
/// yet is kept. Whole blocks of the file system are cut (4 KiB, as a rule), so a limit should be some dozens of them.
///
/// Processes that have the file open for appending write on at its new end; no hole comes into being.
///
/// Where the file system can take out a range (ext4, xfs), that is one step between two writes, and nothing is ever lost.
/// Elsewhere (tmpfs, btrfs) the end of the file is copied to its front and the rest cut off. What is written meanwhile is copied
/// after it, until a read finds nothing more; what a process writes between that read and the cut, the very next system call,
/// is lost. No call of the kernel cuts a file only if nobody has written to it, so this window (about a microsecond, longer if
/// we are preempted in it) cannot be closed without stopping the process.
///
/// It may block for as long as the disk takes to write the file.
///
/// # Errors
/// When the file cannot be opened, read or cut.
pub(super) fn cap(path: &Path, limit: u64, cuttable: u64) -> io::Result<u64> {
    // Not for appending: then even a write at an offset would go to the end.
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let metadata = file.metadata()?;
    if metadata.len() <= limit {
        return Ok(0);
    }
    let excess = (metadata.len() - limit / 2).min(cuttable);
    let cut = excess - excess % metadata.blksize().max(1);
    if cut > 0 && !collapse(&file, cut)? {
        copy_down(&file, cut)?;
    }
    Ok(cut)
}

/// Takes the first `length` bytes out of a file. `false`: its file system cannot do that.
fn collapse(file: &File, length: u64) -> io::Result<bool> {
    match fallocate(file, FallocateFlags::COLLAPSE_RANGE, 0, length) {
        Ok(()) => Ok(true),
        // EINVAL: the file system has blocks of another size than it says.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Moves what stands from `from` on to the front of the file and cuts off the rest.
fn copy_down(file: &File, from: u64) -> io::Result<()> {
    let mut chunk = vec![0; COPY];
    let (mut source, mut target) = (from, 0);
    loop {
        let count = match file.read_at(&mut chunk, source) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if count == 0 {
            // Nothing may come between the read and this.
            return file.set_len(target);
        }
        file.write_all_at(chunk.get(..count).unwrap_or_default(), target)?;
        source += count as u64;
        target += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    const LIMIT: u64 = 256 * 1024;

    fn numbered_lines(count: usize) -> Vec<u8> {
        (0..count)
            .flat_map(|number| format!("{number}\n").into_bytes())
            .collect()
    }

    /// What a file is cut in: 4 KiB as a rule, 128 KiB and more on some file systems.
    fn block(path: &Path) -> u64 {
        fs::metadata(path).unwrap().blksize()
    }

    /// A folder on the usual file system, and one on tmpfs, which cannot take out a range.
    fn folders() -> [TempDir; 2] {
        [
            TempDir::new().unwrap(),
            TempDir::new_in("/dev/shm").unwrap(),
        ]
    }

    #[test]
    fn a_file_within_its_limit_is_left_alone() {
        for folder in folders() {
            let path = folder.path().join("log");
            fs::write(&path, vec![b'x'; usize::try_from(LIMIT).unwrap()]).unwrap();
            assert_eq!(cap(&path, LIMIT, u64::MAX).unwrap(), 0);
            assert_eq!(fs::metadata(&path).unwrap().len(), LIMIT);
        }
    }

    #[test]
    fn a_file_beyond_its_limit_keeps_its_end_and_has_no_hole() {
        for folder in folders() {
            let path = folder.path().join("log");
            let before = numbered_lines(200_000);
            fs::write(&path, &before).unwrap();
            let cut = usize::try_from(cap(&path, LIMIT, u64::MAX).unwrap()).unwrap();
            let after = fs::read(&path).unwrap();
            // A hole is read as zeros, which are in no line.
            assert_eq!(after, before[cut..]);
            let kept = after.len() as u64;
            assert!((LIMIT / 2..LIMIT / 2 + block(&path)).contains(&kept));
        }
    }

    #[test]
    fn what_may_not_be_cut_is_kept() {
        for folder in folders() {
            let path = folder.path().join("log");
            let before = numbered_lines(200_000);
            fs::write(&path, &before).unwrap();
            let cuttable = 1_000_000;
            let cut = cap(&path, LIMIT, cuttable).unwrap();
            assert!(cut <= cuttable && cuttable - cut < block(&path), "{cut}");
            let cut = usize::try_from(cut).unwrap();
            assert_eq!(fs::read(&path).unwrap(), before[cut..]);
            assert_eq!(cap(&path, LIMIT, 10).unwrap(), 0);
        }
    }
}
