//! Why a request was not carried out, as the `error` message says it.

use std::fmt::Display;

use rustix::io::Errno;

use crate::protocol::{Code, Message};

#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    pub message: String,
    pub errno: Option<i32>,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), errno: None }
    }

    /// `operation` and `thing` make the sentence: cannot `operation` `thing`: cause.
    pub fn system(operation: &str, thing: impl Display, errno: Errno) -> Self {
        Self {
            code: code_of(errno),
            message: format!("cannot {operation} {thing}: {}", describe(errno)),
            errno: Some(errno.raw_os_error()),
        }
    }

    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, message)
    }

    pub fn reset() -> Self {
        Self::new(Code::Reset, "the host gave the stream up")
    }

    pub fn into_message(self) -> Message {
        Message::Error { code: self.code, message: self.message, errno: self.errno }
    }
}

pub fn describe(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let plain = text.split(" (os error").next().unwrap_or(&text);
    plain.to_lowercase()
}

fn code_of(errno: Errno) -> Code {
    match errno {
        Errno::NOENT | Errno::NXIO | Errno::NODEV => Code::NotFound,
        Errno::EXIST | Errno::ADDRINUSE => Code::Exists,
        Errno::NOTDIR => Code::NotADirectory,
        Errno::ISDIR => Code::IsADirectory,
        Errno::NOTEMPTY => Code::NotEmpty,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => Code::Permission,
        Errno::NOSPC | Errno::DQUOT => Code::NoSpace,
        Errno::FBIG | Errno::TOOBIG | Errno::NAMETOOLONG => Code::TooLarge,
        Errno::BUSY | Errno::AGAIN | Errno::TXTBSY | Errno::NOMEM | Errno::MFILE | Errno::NFILE => Code::Busy,
        Errno::INVAL | Errno::LOOP | Errno::BADF => Code::BadRequest,
        Errno::OPNOTSUPP | Errno::NOSYS => Code::Unsupported,
        _ => Code::Io,
    }
}

/// A path of the user's for a message: bytes that are not text are shown escaped, and no message is as long as a path can be.
pub fn show(path: &[u8]) -> String {
    const LIMIT: usize = 300;
    let shown = path[..path.len().min(LIMIT)].escape_ascii();
    let text = match std::str::from_utf8(path) {
        Ok(text) if path.len() <= LIMIT && !text.contains(char::is_control) => text.to_string(),
        _ => shown.to_string(),
    };
    if path.len() > LIMIT {
        text + "..."
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_operation_thing_and_cause() {
        let failure = Failure::system("stat", "/nothing", Errno::NOENT);
        assert_eq!(failure.message, "cannot stat /nothing: no such file or directory");
        assert_eq!((failure.code, failure.errno), (Code::NotFound, Some(2)));
    }

    #[test]
    fn shows_any_path() {
        assert_eq!(show("/tmp/caf\u{e9}".as_bytes()), "/tmp/caf\u{e9}");
        assert_eq!(show(b"/a\xff\n"), "/a\\xff\\n");
        assert_eq!(show(&[b'a'; 4000]).len(), 303);
    }
}
