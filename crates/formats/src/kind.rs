//! What a file looks like from its first bytes.
//!
//! Used to choose a reader, and to tell people what they have when it is not a model.

/// What the first bytes of a file say it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// A GGUF model, of any version and byte order.
    Gguf,
    /// A safetensors file.
    Safetensors,
    /// A model of llama.cpp before GGUF (GGML, GGMF, GGJT).
    OldGgml,
    /// A ZIP archive: a PyTorch checkpoint, most often.
    Zip,
    /// A bare Python pickle.
    Pickle,
    /// A gzip, zstd, xz or 7z archive.
    Compressed,
    /// A web page: a download that met an error or a login page.
    Html,
    /// A git-lfs pointer instead of the file it stands for.
    LfsPointer,
    /// A JSON document.
    Json,
    /// No bytes at all.
    Empty,
    /// Only zeros at its start: a download that reserved the space and then stopped.
    Zeros,
    /// None of these.
    Unknown,
}

/// First bytes and what they mean; the first match counts.
const SIGNATURES: [(&[u8], FileKind); 16] = [
    (b"GGUF", FileKind::Gguf),
    (b"lmgg", FileKind::OldGgml),
    (b"fmgg", FileKind::OldGgml),
    (b"tjgg", FileKind::OldGgml),
    (b"algg", FileKind::OldGgml),
    (b"PK\x03\x04", FileKind::Zip),
    (b"\x80\x02", FileKind::Pickle),
    (b"\x80\x04", FileKind::Pickle),
    (b"\x1f\x8b", FileKind::Compressed),
    (b"\x28\xb5\x2f\xfd", FileKind::Compressed),
    (b"\xfd7zXZ", FileKind::Compressed),
    (b"7z\xbc\xaf", FileKind::Compressed),
    (b"version https://git-lfs", FileKind::LfsPointer),
    (b"<!", FileKind::Html),
    (b"<html", FileKind::Html),
    (b"<HTML", FileKind::Html),
];

impl FileKind {
    /// Looks at the first bytes; reads no more than a few dozen.
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::Empty;
        }
        if let Some((_, kind)) = SIGNATURES.iter().find(|(start, _)| bytes.starts_with(start)) {
            return *kind;
        }
        let head = &bytes[..bytes.len().min(64)];
        match head {
            [_, _, _, _, _, _, 0, 0, b'{', ..] => Self::Safetensors,
            _ if head.iter().all(|&b| b == 0) => Self::Zeros,
            _ => match head.trim_ascii_start() {
                [b'<', ..] => Self::Html,
                [b'{', ..] => Self::Json,
                _ => Self::Unknown,
            },
        }
    }

    /// What it is in words, and what to do with it when a model was expected.
    fn advice(self) -> &'static str {
        match self {
            Self::Gguf => "a GGUF file; open it as GGUF",
            Self::Safetensors => "a safetensors file; open it as safetensors, with its config.json",
            Self::OldGgml => "a GGML model from before GGUF; download a GGUF version of the model",
            Self::Zip => "a ZIP archive (a PyTorch checkpoint?); convert it to safetensors or GGUF first",
            Self::Pickle => "a Python pickle; convert it to safetensors or GGUF first",
            Self::Compressed => "a compressed archive; unpack it first",
            Self::Html => "a web page, most likely an error or login page; download the file itself",
            Self::LfsPointer => "a git-lfs pointer; run `git lfs pull` to get the file itself",
            Self::Json => "a JSON document; pass the model file or its folder",
            Self::Empty => "empty; download it again",
            Self::Zeros => "zeros, an unfinished download; download it again",
            Self::Unknown => {
                "of an unknown kind; check that it is the right file and that its download finished"
            }
        }
    }
}

impl std::fmt::Display for FileKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.advice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_the_kind() {
        let check = |bytes: &[u8], want| assert_eq!(FileKind::of(bytes), want, "{bytes:?}");
        check(b"", FileKind::Empty);
        check(b"GGUF\x03\0\0\0", FileKind::Gguf);
        check(b"tjgg\x01\0\0\0", FileKind::OldGgml);
        check(b"PK\x03\x04\0\0", FileKind::Zip);
        check(b"\x08\0\0\0\0\0\0\0{}      ", FileKind::Safetensors);
        check(b"\n  <!DOCTYPE html><html>", FileKind::Html);
        check(b"<!DOCTYPE html>", FileKind::Html);
        check(b"version https://git-lfs.github.com/spec/v1", FileKind::LfsPointer);
        check(b" {\"error\":\"not found\"}", FileKind::Json);
        check(&[0; 4096], FileKind::Zeros);
        check(b"hello", FileKind::Unknown);
    }
}
