use crate::protocol::Code;
use crate::tree_receive::receive;
use crate::tree_send::send;
use crate::vectors;
use serde_bytes::ByteBuf;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("firebrick-agent-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory for the test");
        Self(path)
    }

    fn make(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).expect("a directory for the test");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(path: &Path) -> OwnedFd {
    fs::File::open(path).expect("the target").into()
}

fn bytes(path: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().to_vec()
}

#[test]
fn agrees_with_the_vectors() {
    let scratch = Scratch::new("vectors");
    for (at, vector) in vectors::trees().iter().enumerate() {
        let target = scratch.make(&at.to_string());
        let result = receive(&mut &vector.bytes[..], open(&target), (None, None));
        assert_eq!(result.is_ok(), vector.frames.is_some(), "{}: {result:?}", vector.name);
        if vector.name == "tree" {
            assert_eq!(result.ok(), Some((6, 10)));
            check_vector_tree(&target);
        }
    }
}

fn check_vector_tree(target: &Path) {
    use std::os::unix::ffi::OsStrExt;
    let sparse = target.join(std::ffi::OsStr::from_bytes(b"s\xffparse"));
    let data = fs::read(&sparse).expect("the sparse file");
    assert_eq!((data.len(), &data[..4], &data[524_288..524_294]), (1 << 20, &b"head"[..], &b"middle"[..]));
    let meta = fs::metadata(&sparse).expect("the sparse file");
    assert!(meta.blocks() * 512 < 1 << 19, "the holes are filled");
    assert_eq!((meta.nlink(), meta.permissions().mode() & 0o7777), (2, 0o600));
    assert_eq!(meta.mtime_nsec(), 1);
    assert_eq!(fs::metadata(target.join("d")).expect("d").permissions().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(target.join("d")).expect("d").mtime(), 1_700_000_000);
    assert_eq!(fs::read_link(target.join("d/link")).expect("the link"), Path::new("../nowhere"));
}

#[test]
fn nothing_is_written_through_a_link_that_is_there_already() {
    let scratch = Scratch::new("confined");
    let (outside, target) = (scratch.make("outside"), scratch.make("target"));
    let source = scratch.make("source");
    fs::create_dir(source.join("d")).expect("d");
    fs::write(source.join("d/file"), "x").expect("file");
    symlink(&outside, target.join("d")).expect("the trap");
    let mut stream = Vec::new();
    send(&mut stream, &bytes(&source), &[]).expect("a tree");
    let refused =
        receive(&mut &stream[..], open(&target), (None, None)).expect_err("it was written through the link");
    assert_eq!(refused.code, Code::BadRequest);
    assert_eq!(fs::read_dir(&outside).expect("outside").count(), 0);
}

#[test]
fn a_link_in_the_place_of_a_file_is_replaced() {
    let scratch = Scratch::new("replaced");
    let (source, target) = (scratch.make("source"), scratch.make("target"));
    fs::write(source.join("file"), "new").expect("file");
    fs::write(scratch.0.join("victim"), "old").expect("victim");
    symlink(scratch.0.join("victim"), target.join("file")).expect("the trap");
    let mut stream = Vec::new();
    send(&mut stream, &bytes(&source), &[]).expect("a tree");
    receive(&mut &stream[..], open(&target), (None, None)).expect("received");
    assert_eq!(fs::read_to_string(scratch.0.join("victim")).expect("victim"), "old");
    assert_eq!(fs::read_to_string(target.join("file")).expect("file"), "new");
}

#[test]
fn a_tree_arrives_as_it_was() {
    let scratch = Scratch::new("round");
    let (source, target) = (scratch.make("source"), scratch.make("target"));
    fs::create_dir_all(source.join("a/b/c")).expect("directories");
    fs::write(source.join("a/b/c/deep"), vec![7; 700_000]).expect("deep");
    fs::write(source.join("a/left.o"), "out").expect("left.o");
    fs::write(source.join("empty"), "").expect("empty");
    fs::hard_link(source.join("a/b/c/deep"), source.join("again")).expect("a link");
    symlink("/etc/passwd", source.join("absolute")).expect("a link");
    let sparse = fs::File::create(source.join("sparse")).expect("sparse");
    rustix::io::pwrite(&sparse, b"end", 50 << 20).expect("written");
    fs::set_permissions(source.join("a/b"), fs::Permissions::from_mode(0o750)).expect("mode");
    let mut stream = Vec::new();
    let sent = send(&mut stream, &bytes(&source), &[ByteBuf::from("*.o")]).expect("a tree");
    assert!(stream.len() < 1 << 20, "holes were sent");
    let received = receive(&mut &stream[..], open(&target), (None, None)).expect("received");
    assert_eq!(sent, received);
    assert_eq!(fs::read(target.join("again")).expect("again").len(), 700_000);
    assert_eq!(fs::metadata(target.join("again")).expect("again").nlink(), 2);
    assert_eq!(fs::metadata(target.join("sparse")).expect("sparse").len(), (50 << 20) + 3);
    assert!(!target.join("a/left.o").exists() && target.join("empty").exists());
    for name in ["a/b", "a", "", "sparse", "absolute"] {
        let of = |top: &Path| fs::symlink_metadata(top.join(name)).expect(name);
        let (before, after) = (of(&source), of(&target));
        assert_eq!(
            (before.mtime(), before.mtime_nsec(), before.mode()),
            (after.mtime(), after.mtime_nsec(), after.mode()),
            "{name}"
        );
    }
}

#[test]
fn one_file_alone_is_its_own_root() {
    let scratch = Scratch::new("single");
    fs::write(scratch.0.join("file"), "data").expect("file");
    let mut stream = Vec::new();
    assert_eq!(send(&mut stream, &bytes(&scratch.0.join("file")), &[]).expect("a file"), (1, 4));
    let target = scratch.make("target");
    assert!(
        receive(&mut &stream[..], open(&target), (None, None)).is_err(),
        "a directory cannot become a file"
    );
}

/// Deterministic garbage made of the good vectors: the receiver may refuse, and never panics or leaves the target.
#[test]
fn garbage_is_refused() {
    let scratch = Scratch::new("garbage");
    let outer = scratch.make("outer");
    let mut random = vectors::Random::new(0xbad_7ee);
    let seeds = vectors::trees();
    for round in 0..600 {
        let mut stream = seeds[random.below(seeds.len())].bytes.clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(stream.len());
            stream[at] = random.byte();
        }
        let target = outer.join(round.to_string());
        fs::create_dir(&target).expect("a target");
        let _ = receive(&mut &stream[..], open(&target), (None, None));
        let _ = fs::set_permissions(&target, fs::Permissions::from_mode(0o755));
        fs::remove_dir_all(&target).expect("removed");
        assert_eq!(fs::read_dir(&outer).expect("outer").count(), 0, "something was made outside");
    }
}
