//! A disk that is soon full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::foreign;

/// A file system in memory of a few megabytes; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one; `None` where that is not allowed, which is then said as for a foreign program
    /// that is missing.
    ///
    /// # Panics
    /// When it cannot be mounted and tests must not be skipped.
    #[track_caller]
    pub fn of_megabytes(size: u32) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().expect("the temporary directory can be written");
        let done = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size}m,mode=0777"),
                "tmpfs",
            ])
            .arg(dir.path())
            .output();
        if done.is_ok_and(|done| done.status.success()) {
            return Some(SmallDisk { dir });
        }
        foreign("mount-a-tmpfs", "root and CAP_SYS_ADMIN").map(|_| SmallDisk { dir })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Takes all the space that is left, but for about `spare` bytes.
    ///
    /// # Panics
    /// When it cannot be written at all.
    #[track_caller]
    pub fn fill(&self, spare: usize) {
        let ballast = self.ballast();
        let chunk = vec![0_u8; 64 * 1024];
        let mut file = fs::File::create(&ballast).expect("the disk is ours");
        let mut size: u64 = 0;
        while let Ok(written) = std::io::Write::write(&mut file, &chunk) {
            size += written as u64;
        }
        let keep = size.saturating_sub(spare as u64);
        file.set_len(keep).expect("a file can be made shorter");
    }

    /// Gives back what [`SmallDisk::fill`] took.
    ///
    /// # Panics
    /// When it was not called.
    #[track_caller]
    pub fn free(&self) {
        fs::remove_file(self.ballast()).expect("fill made it");
    }

    fn ballast(&self) -> PathBuf {
        self.dir.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a program that was just killed may hold files of it for a moment.
        let done = Command::new("umount")
            .arg("-l")
            .arg(self.dir.path())
            .status();
        if !done.is_ok_and(|status| status.success()) && !std::thread::panicking() {
            panic!("could not unmount {}", self.dir.path().display());
        }
    }
}
