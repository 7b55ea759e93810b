//! Who a process runs as, from the guest's own `/etc/passwd` and `/etc/group`. A root image may lack both: numbers always work.

use std::io::Read;

use crate::failure::Failure;
use crate::protocol::Code;

/// A file larger than this is no list of users of a machine, and a job may have put anything there.
const LIMIT: u64 = 4 << 20;

#[derive(Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub name: Vec<u8>,
    pub home: Vec<u8>,
}

impl User {
    pub fn root() -> Self {
        Self { uid: 0, gid: 0, groups: vec![0], name: b"root".to_vec(), home: b"/root".to_vec() }
    }

    /// `wanted` is a name, a uid, or uid:gid.
    pub fn find(wanted: &str) -> Result<Self, Failure> {
        Self::find_in(wanted, &load("/etc/passwd"), &load("/etc/group"))
    }

    fn find_in(wanted: &str, passwd: &[u8], group: &[u8]) -> Result<Self, Failure> {
        let (user, gid) = match wanted.split_once(':') {
            Some((user, gid)) => (user, Some(parse_id(gid.as_bytes()).ok_or_else(|| unknown(wanted))?)),
            None => (wanted, None),
        };
        let uid = parse_id(user.as_bytes());
        let mut found = match (lines(passwd).find_map(|line| parse_line(line, user.as_bytes(), uid)), uid) {
            (Some(found), _) => found,
            (None, Some(uid)) => {
                Self { uid, gid: uid, groups: vec![], name: user.into(), home: b"/".to_vec() }
            }
            (None, None) => return Err(unknown(wanted)),
        };
        match gid {
            Some(gid) => (found.gid, found.groups) = (gid, vec![gid]),
            None => found.groups = groups_of(&found, group),
        }
        Ok(found)
    }
}

fn unknown(wanted: &str) -> Failure {
    Failure::new(Code::NoSuchUser, format!("there is no user {wanted:?} in this machine"))
}

fn load(path: &str) -> Vec<u8> {
    let mut text = Vec::new();
    // Missing or unreadable is the same as empty.
    if let Ok(file) = open_plain(path) {
        let _ = file.take(LIMIT).read_to_end(&mut text);
    }
    text
}

fn open_plain(path: &str) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    // A fifo that a job has put there must not stop us.
    std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
}

fn parse_id(text: &[u8]) -> Option<u32> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let id: u32 = std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()?;
    (id != u32::MAX).then_some(id) // that one means "do not change" to the kernel
}

fn parse_line(line: &[u8], name: &[u8], uid: Option<u32>) -> Option<User> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
    let [login, _, id, gid, _, home, ..] = fields[..] else { return None };
    let (id, gid) = (parse_id(id)?, parse_id(gid)?);
    (login == name || uid == Some(id)).then(|| User {
        uid: id,
        gid,
        groups: vec![],
        name: login.to_vec(),
        home: if home.is_empty() { b"/".to_vec() } else { home.to_vec() },
    })
}

fn groups_of(user: &User, group: &[u8]) -> Vec<u32> {
    let mut groups = vec![user.gid];
    for line in lines(group) {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let [_, _, gid, members] = fields[..] else { continue };
        let member = members.split(|byte| *byte == b',').any(|member| member == user.name);
        if let (true, Some(gid)) = (member, parse_id(gid)) {
            if !groups.contains(&gid) {
                groups.push(gid);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/sh\nbroken\nada:x:1000:1001:Ada:/home/ada:/bin/bash\nnohome:x:7:7::: \n";
    const GROUP: &[u8] = b"docker:x:50:ada,bob\nada:x:1001:\nbad:x:x:ada\nvideo:x:44:bob,ada\n";

    fn find(wanted: &str) -> Option<User> {
        User::find_in(wanted, PASSWD, GROUP).ok()
    }

    #[test]
    fn finds_by_name_and_by_number() {
        let ada = find("ada").expect("a user of the list");
        assert_eq!((ada.uid, ada.gid, &ada.home[..]), (1000, 1001, &b"/home/ada"[..]));
        assert_eq!(ada.groups, [1001, 50, 44]);
        assert_eq!(find("1000"), Some(ada));
        assert_eq!(find("7").map(|user| user.home), Some(b"/".to_vec()));
    }

    #[test]
    fn numbers_need_no_list() {
        let user = User::find_in("123:456", b"", b"").expect("numbers always work");
        assert_eq!((user.uid, user.gid, user.groups), (123, 456, vec![456]));
        assert_eq!(User::find_in("0", b"", b"").map(|user| user.uid).ok(), Some(0));
    }

    #[test]
    fn refuses_what_is_no_user() {
        for wanted in ["nobody-here", "", ":", "1:x", "-1", "4294967295", "99999999999", "ada:"] {
            assert!(find(wanted).is_none(), "{wanted:?} was found");
        }
    }
}
