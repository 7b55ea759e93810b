//! For tests: reads `tests/vectors/agent-protocol.json`, and makes deterministic garbage.

use serde_json::{json, Value};

pub struct Vector {
    pub name: String,
    pub from: Option<String>,
    pub bytes: Vec<u8>,
    /// `None`: these bytes must be refused.
    pub frames: Option<Vec<Value>>,
}

fn load(section: &str, expected: &str) -> Vec<Vector> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/agent-protocol.json");
    let text = std::fs::read_to_string(path).expect("the vectors are in the repository");
    let all: Value = serde_json::from_str(&text).expect("the vectors are JSON");
    let list = all[section].as_array().expect("a list of vectors");
    list.iter()
        .map(|vector| Vector {
            name: vector["name"].as_str().expect("a name").into(),
            from: vector["from"].as_str().map(Into::into),
            bytes: unhex(vector["hex"].as_str().expect("hex")),
            frames: vector[expected].as_array().cloned(),
        })
        .collect()
}

pub fn frames() -> Vec<Vector> {
    load("frames", "frames")
}

pub fn trees() -> Vec<Vector> {
    load("trees", "parts")
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits"))
        .collect()
}

pub fn bin(bytes: &[u8]) -> Value {
    json!({"$bin": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()})
}

/// MessagePack as the vectors write it in JSON. A reader of its own, so that the codec under test does not check itself.
pub fn plain(mut raw: &[u8]) -> Value {
    let value = read(&mut raw);
    assert!(raw.is_empty(), "bytes after the message");
    value
}

fn take<'a>(raw: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = raw.split_at(count);
    *raw = rest;
    taken
}

fn number(raw: &mut &[u8], size: usize) -> u64 {
    take(raw, size).iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn read(raw: &mut &[u8]) -> Value {
    let tag = take(raw, 1)[0];
    match tag {
        0x00..=0x7f => tag.into(),
        0x80..=0x8f => read_map(raw, usize::from(tag & 15)),
        0x90..=0x9f => (0..tag & 15).map(|_| read(raw)).collect(),
        0xa0..=0xbf => read_str(raw, usize::from(tag & 31)),
        0xc0 => Value::Null,
        0xc2 => false.into(),
        0xc3 => true.into(),
        0xc4 => {
            let n = number(raw, 1) as usize;
            bin(take(raw, n))
        }
        0xc5 => {
            let n = number(raw, 2) as usize;
            bin(take(raw, n))
        }
        0xcc..=0xcf => number(raw, 1 << (tag - 0xcc)).into(),
        0xd0 => (number(raw, 1) as i8).into(),
        0xd3 => (number(raw, 8) as i64).into(),
        0xd9 => {
            let n = number(raw, 1) as usize;
            read_str(raw, n)
        }
        0xde => {
            let n = number(raw, 2) as usize;
            read_map(raw, n)
        }
        0xe0..=0xff => (tag as i8).into(),
        other => panic!("MessagePack tag {other:#x} in a test"),
    }
}

fn read_str(raw: &mut &[u8], length: usize) -> Value {
    std::str::from_utf8(take(raw, length)).expect("UTF-8").into()
}

fn read_map(raw: &mut &[u8], length: usize) -> Value {
    let pairs: Vec<(Value, Value)> = (0..length).map(|_| (read(raw), read(raw))).collect();
    match pairs.first() {
        Some((Value::Object(_), _)) => {
            json!({"$map": pairs.into_iter().map(|(k, v)| json!([k, v])).collect::<Vec<_>>()})
        }
        _ => Value::Object(
            pairs.into_iter().map(|(k, v)| (k.as_str().expect("a name").to_string(), v)).collect(),
        ),
    }
}

/// xorshift: the same garbage in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn byte(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u8
    }

    pub fn below(&mut self, limit: usize) -> usize {
        let wide = (0..4).fold(0usize, |sum, _| sum << 8 | usize::from(self.byte()));
        wide % limit.max(1)
    }
}
