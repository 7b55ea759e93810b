//! What an exec asks for, made ready for the kernel: program, arguments, environment, directory, user.

use std::ffi::CString;

use rustix::io::Errno;
use serde_bytes::ByteBuf;

use crate::failure::{show, Failure};
use crate::protocol::{Code, ExecRequest};
use crate::spawn::{candidates, Step};
use crate::user::User;

const PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub struct Command {
    /// Paths to try in turn.
    pub candidates: Vec<CString>,
    pub argv: Vec<CString>,
    pub env: Vec<CString>,
    pub cwd: CString,
    /// Nobody in particular stays who we are.
    pub user: Option<User>,
    name: String,
}

impl Command {
    pub fn of(request: &ExecRequest) -> Result<Self, Failure> {
        let user = request.user.as_deref().map(User::find).transpose()?;
        let argv = strings(&request.argv, "an argument")?;
        let program = argv.first().ok_or_else(|| Failure::bad("an exec needs a program"))?;
        let (env, path) = environment(request, user.as_ref().unwrap_or(&User::root()))?;
        let cwd = string(request.cwd.as_ref().map_or(b"/", |cwd| cwd), "the directory")?;
        let (candidates, name) = (candidates(program, &path), show(program.to_bytes()));
        Ok(Self { candidates, argv, env, cwd, user, name })
    }

    pub fn failed(&self, operation: &str, errno: Errno) -> Failure {
        Failure::system(operation, &self.name, errno)
    }

    /// It was killed before it was a program.
    pub fn stuck(&self) -> Failure {
        Failure::new(Code::Busy, format!("cannot run {}: the machine could not start it in time", self.name))
    }

    /// Why it could not be started.
    pub fn explain(&self, (step, errno): (Step, Errno)) -> Failure {
        match (step, errno) {
            (Step::Directory, _) => Failure::system("enter", show(self.cwd.to_bytes()), errno),
            (Step::Filter, _) => self.failed("seed the random numbers of", errno),
            (Step::User, _) => self.failed("change the user for", errno),
            (Step::Execute, Errno::ACCESS | Errno::NOEXEC | Errno::ISDIR | Errno::LIBBAD) => {
                Failure { code: Code::NotExecutable, ..self.failed("run", errno) }
            }
            (Step::Clone, Errno::AGAIN) => {
                Failure { code: Code::Busy, ..self.failed("start a process for", errno) }
            }
            _ => self.failed("run", errno),
        }
    }
}

fn string(bytes: &[u8], what: &str) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| Failure::bad(format!("{what} of an exec contains a zero byte")))
}

fn strings(all: &[ByteBuf], what: &str) -> Result<Vec<CString>, Failure> {
    all.iter().map(|one| string(one, what)).collect()
}

/// The environment, and the PATH in it: ours first, then what the request says, which wins.
fn environment(request: &ExecRequest, user: &User) -> Result<(Vec<CString>, Vec<u8>), Failure> {
    let mut defaults: Vec<(&[u8], &[u8])> = Vec::new();
    if !request.clear_env {
        defaults.extend([
            (&b"PATH"[..], PATH),
            (b"HOME", &user.home[..]),
            (b"USER", &user.name[..]),
            (b"LOGNAME", &user.name[..]),
        ]);
        defaults.extend(request.pty.map(|_| (&b"TERM"[..], &b"xterm-256color"[..])));
    }
    let asked = request.env.iter().map(|(name, value)| (&name[..], &value[..]));
    let kept =
        defaults.into_iter().filter(|(name, _)| !request.env.contains_key(serde_bytes::Bytes::new(name)));
    let all: Vec<(&[u8], &[u8])> = kept.chain(asked).collect();
    if all.iter().any(|(name, _)| name.is_empty() || name.contains(&b'=')) {
        return Err(Failure::bad("a name in the environment of an exec is empty or contains ="));
    }
    let path = all.iter().find(|(name, _)| *name == b"PATH").map_or(PATH, |(_, value)| value).to_vec();
    let lines = all.iter().map(|(name, value)| string(&[name, &b"="[..], value].concat(), "the environment"));
    Ok((lines.collect::<Result<_, _>>()?, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::PtySize;

    fn request() -> ExecRequest {
        ExecRequest {
            argv: vec![ByteBuf::from("x")],
            env: Default::default(),
            clear_env: false,
            cwd: None,
            user: None,
            stdin: false,
            pty: None,
            timeout_ms: None,
            detach: false,
            merge: false,
            before: Vec::new(),
            listing: None,
        }
    }

    fn texts(request: &ExecRequest) -> Vec<String> {
        let Ok((env, _)) = environment(request, &User::root()) else {
            panic!("a good environment was refused")
        };
        env.iter().map(|line| line.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_request_wins_over_the_defaults() {
        let mut request = request();
        request.env.insert(ByteBuf::from("HOME"), ByteBuf::from("/elsewhere"));
        request.pty = Some(PtySize { rows: 1, cols: 1 });
        let env = texts(&request);
        assert_eq!(
            env.iter().filter(|line| line.starts_with("HOME=")).collect::<Vec<_>>(),
            ["HOME=/elsewhere"]
        );
        assert!(env.contains(&"USER=root".into()) && env.contains(&"TERM=xterm-256color".into()));
        request.clear_env = true;
        assert_eq!(texts(&request), ["HOME=/elsewhere"]);
    }

    #[test]
    fn refuses_names_that_are_none() {
        for name in ["", "A=B"] {
            let mut request = request();
            request.env.insert(ByteBuf::from(name), ByteBuf::from("x"));
            assert!(environment(&request, &User::root()).is_err());
        }
        let mut request = request();
        request.env.insert(ByteBuf::from("A"), ByteBuf::from("x\0y"));
        assert!(environment(&request, &User::root()).is_err());
    }
}
