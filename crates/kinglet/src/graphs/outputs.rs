//! Files for large outputs: without a name where the system allows it, so that nothing is left behind however a process
//! ends, and open to other processes while they are in use.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use kinglet_cpu::OutputFiles;
use kinglet_tensor::{FileRange, Tensor, file_of};

const PREFIX: &str = "kinglet-";
const EXTENSION: &str = "output";

/// A folder that files of outputs are made in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFolder {
    path: PathBuf,
}

impl OutputFolder {
    /// A folder that is there. What processes that have ended left in it is removed.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        remove_stale(&path);
        Self { path }
    }
}

impl Default for OutputFolder {
    /// The system's folder for temporary files.
    fn default() -> Self {
        Self::new(std::env::temp_dir())
    }
}

impl OutputFiles for OutputFolder {
    fn create(&self, bytes: u64) -> io::Result<File> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{PREFIX}{}-{number}.{EXTENSION}", std::process::id()));
        let file = private().read(true).write(true).create_new(true).open(&path)?;
        // Held as long as the file is open: where it keeps its name, others see that it is in use.
        let _locked = file.try_lock();
        let _unnamed = fs::remove_file(&path);
        fs4::FileExt::allocate(&file, bytes)?;
        Ok(file)
    }
}

/// Removes files of outputs that nobody has open any more.
fn remove_stale(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(PREFIX) && path.extension().is_some_and(|end| end == EXTENSION)
    };
    for path in entries.filter(ours) {
        if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            let _gone = fs::remove_file(path);
        }
    }
}

/// Files that only this user may open.
#[cfg(unix)]
fn private() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(not(unix))]
fn private() -> OpenOptions {
    OpenOptions::new()
}

/// An output that lies in a file, for another process to map instead of being sent a copy.
#[derive(Clone, Debug)]
pub struct OutputFile {
    range: FileRange,
}

impl OutputFile {
    /// The file of an output; none when it is in memory.
    pub fn of(output: &Tensor) -> Option<Self> {
        file_of(output.data()).map(|range| Self { range })
    }

    /// The open file, where the output begins in it, and its bytes. Whoever inherits or is sent the descriptor may map
    /// it, also after this process has ended.
    pub fn range(&self) -> &FileRange {
        &self.range
    }

    /// A path under which processes of the same user can open the file while the output is held here.
    #[cfg(target_os = "linux")]
    pub fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        format!("/proc/{}/fd/{}", std::process::id(), self.range.file.as_raw_fd()).into()
    }
}
