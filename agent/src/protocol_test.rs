use super::*;
use crate::vectors::{self, Vector};

fn decode_all(raw: &[u8]) -> Result<Vec<Frame>, Violation> {
    let mut decoder = Decoder::default();
    let mut input = raw;
    let mut frames = Vec::new();
    while let Some(frame) = decoder.next(&mut input)? {
        frames.push(frame);
    }
    Ok(frames)
}

/// A frame as the vectors write it.
fn describe(frame: &Frame, from_host: bool) -> Result<serde_json::Value, Violation> {
    let mut value = serde_json::json!({"stream": frame.stream, "channel": frame.channel});
    let kind = match &frame.body {
        Body::Control(raw) => {
            value["message"] = describe_message(frame.stream, raw, from_host)?;
            "control"
        }
        Body::Data(bytes) => {
            value["payload"] = vectors::bin(bytes);
            "data"
        }
        Body::Credit(bytes) => {
            value["bytes"] = (*bytes).into();
            "credit"
        }
        Body::Eof => "eof",
        Body::Reset => "reset",
    };
    value["kind"] = kind.into();
    Ok(value)
}

/// Decodes the message and encodes it again: what comes out must still be what the vector says.
fn describe_message(stream: u32, raw: &[u8], from_host: bool) -> Result<serde_json::Value, Violation> {
    let again = match (from_host, stream) {
        (true, 0) => encode(&decode::<Order>(raw)?),
        (true, _) => encode(&decode::<Request>(raw)?),
        (false, _) => encode(&decode::<Message>(raw)?),
    };
    Ok(vectors::plain(&again))
}

fn check(vector: &Vector) {
    let from_host = vector.from.as_deref() == Some("host");
    let described: Result<Vec<_>, _> = decode_all(&vector.bytes)
        .and_then(|frames| frames.iter().map(|frame| describe(frame, from_host)).collect());
    match &vector.frames {
        None => assert!(described.is_err(), "{} was accepted: {described:?}", vector.name),
        Some(expected) => assert_eq!(&described.expect(&vector.name), expected, "{}", vector.name),
    }
}

#[test]
fn agrees_with_the_vectors() {
    let vectors = vectors::frames();
    assert!(vectors.len() > 50);
    vectors.iter().for_each(check);
}

#[test]
fn frames_do_not_depend_on_how_the_bytes_arrive() {
    for vector in vectors::frames().iter().filter(|vector| vector.frames.is_some()) {
        let whole = decode_all(&vector.bytes).expect("a good vector");
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for byte in &vector.bytes {
            let mut input = std::slice::from_ref(byte);
            frames.extend(decoder.next(&mut input).expect("a good vector"));
        }
        assert_eq!(frames, whole, "{}", vector.name);
    }
}

#[test]
fn a_header_survives_the_way_there_and_back() {
    let raw = encode_header(FRAME_LIMIT, u32::MAX, Kind::Data, ERROR_OUTPUT);
    let header = Header::parse(raw).expect("a header of ours");
    assert_eq!(
        (header.length, header.stream, header.kind, header.channel),
        (FRAME_LIMIT, u32::MAX, Kind::Data, 2)
    );
}

/// Deterministic garbage: half of it random bytes, half of it good vectors with bytes changed, cut and repeated. Nothing may panic or make
/// the decoder hold more than a frame.
#[test]
fn garbage_never_panics_nor_grows() {
    let mut random = vectors::Random::new(0x5eed_f1eb);
    let seeds = vectors::frames();
    for round in 0..20_000 {
        let mut bytes = if round % 2 == 0 {
            (0..random.below(200)).map(|_| random.byte()).collect()
        } else {
            seeds[random.below(seeds.len())].bytes.clone()
        };
        for _ in 0..random.below(8) {
            if !bytes.is_empty() {
                let at = random.below(bytes.len());
                bytes[at] = random.byte();
            }
        }
        bytes.truncate(random.below(bytes.len() + 1));
        let mut decoder = Decoder::default();
        let mut input = bytes.as_slice();
        while let Ok(Some(frame)) = decoder.next(&mut input) {
            if let Body::Control(raw) = &frame.body {
                let _ = decode::<Order>(raw);
                let _ = decode::<Request>(raw);
            }
        }
        assert!(decoder.payload.capacity() <= FRAME_LIMIT);
    }
}
