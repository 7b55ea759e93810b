//! What Firecracker says of its memory, taken as the words of somebody hostile.

use serde::Deserialize;

use crate::region::{Region, HUGE_PAGE, PAGE};

const MOST_REGIONS: usize = 1024;

/// As Firecracker writes it. Both page sizes are bytes, the second despite its name; fields of newer versions are passed over.
#[derive(Deserialize)]
struct Mapping {
    base_host_virt_addr: u64,
    size: u64,
    offset: u64,
    page_size: Option<u64>,
    page_size_kib: Option<u64>,
}

/// The regions a message speaks of, in the order of their addresses. `memory` is the size of the memory file in bytes. The error is what is wrong, to stand
/// after "the message".
pub fn parse(message: &[u8], memory: u64) -> Result<Vec<Region>, String> {
    let mappings: Vec<Mapping> =
        serde_json::from_slice(message).map_err(|error| format!("is not a list of mappings: {error}"))?;
    if mappings.is_empty() || mappings.len() > MOST_REGIONS {
        return Err(format!("has {} mappings instead of 1 to {MOST_REGIONS}", mappings.len()));
    }
    let mut regions =
        mappings.iter().map(|mapping| region_of(mapping, memory)).collect::<Result<Vec<_>, _>>()?;
    regions.sort_unstable_by_key(|region| region.offset);
    apart(&regions, |region| region.offset, "in the memory file")?;
    regions.sort_unstable_by_key(|region| region.host);
    apart(&regions, |region| region.host, "in Firecracker")?;
    Ok(regions)
}

fn region_of(mapping: &Mapping, memory: u64) -> Result<Region, String> {
    let page_size = mapping.page_size.or(mapping.page_size_kib).ok_or("has a mapping without a page size")?;
    if page_size != PAGE && page_size != HUGE_PAGE {
        return Err(format!("has pages of {page_size} bytes"));
    }
    let Mapping { base_host_virt_addr: host, size, offset, .. } = *mapping;
    if size == 0 || [host, size, offset].iter().any(|number| number % page_size != 0) {
        return Err(format!("has a mapping that is not made of pages of {page_size} bytes"));
    }
    if offset.checked_add(size).is_none_or(|end| end > memory) {
        return Err(format!("has a mapping beyond the memory file, which has {memory} bytes"));
    }
    if host == 0 || host.checked_add(size).is_none_or(|end| end > i64::MAX as u64) {
        return Err("has a mapping where no program has memory".into());
    }
    Ok(Region::new(host, size, offset, page_size))
}

fn apart(regions: &[Region], start: impl Fn(&Region) -> u64, place: &str) -> Result<(), String> {
    match regions.windows(2).any(|pair| start(&pair[0]) + pair[0].size > start(&pair[1])) {
        true => Err(format!("has mappings that overlap {place}")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn mapping(host: u64, size: u64, offset: u64, page: u64) -> String {
        format!(
            r#"{{"base_host_virt_addr":{host},"size":{size},"offset":{offset},"page_size":{page},"page_size_kib":{page}}}"#
        )
    }

    fn refused(message: &str) -> String {
        parse(message.as_bytes(), 8 * MIB).err().unwrap_or_else(|| panic!("{message} was taken"))
    }

    #[test]
    fn a_message_of_firecracker_is_understood() {
        let text = format!(
            "[{},{}]",
            mapping(16 * MIB, 4 * MIB, 4 * MIB, PAGE),
            mapping(8 * MIB, 4 * MIB, 0, HUGE_PAGE)
        );
        let regions = parse(text.as_bytes(), 8 * MIB).expect("it is right");
        assert_eq!(regions.iter().map(|region| region.host).collect::<Vec<_>>(), [8 * MIB, 16 * MIB]);
        let old = r#"[{"base_host_virt_addr":4096,"size":4096,"offset":0,"page_size_kib":4096}]"#;
        assert_eq!(parse(old.as_bytes(), MIB).expect("older versions").len(), 1);
        let newer = r#"[{"base_host_virt_addr":4096,"size":4096,"offset":0,"page_size":4096,"color":"red"}]"#;
        assert_eq!(parse(newer.as_bytes(), MIB).expect("newer versions").len(), 1);
    }

    #[test]
    fn garbage_is_refused() {
        for text in ["", "nonsense", "{}", "[]", "[1]", "[{}]", "[null]", "[[[[[[", "\u{0}"] {
            refused(text);
        }
        refused(&"[".repeat(10_000));
        refused(r#"[{"base_host_virt_addr":4096,"size":4096,"offset":0}]"#);
        refused(r#"[{"base_host_virt_addr":-4096,"size":4096,"offset":0,"page_size":4096}]"#);
        refused(&format!("[{}]", vec![mapping(MIB, PAGE, 0, PAGE); 2000].join(",")));
    }

    #[test]
    fn what_lies_outside_or_twice_is_refused() {
        let one = |host, size, offset, page| refused(&format!("[{}]", mapping(host, size, offset, page)));
        assert!(one(MIB, 16 * MIB, 0, PAGE).contains("beyond"));
        assert!(one(MIB, MIB, 8 * MIB, PAGE).contains("beyond"));
        assert!(one(MIB, !(PAGE - 1), PAGE, PAGE).contains("beyond"));
        assert!(one(!(PAGE - 1), 2 * PAGE, 0, PAGE).contains("no program"));
        assert!(one(0, PAGE, 0, PAGE).contains("no program"));
        assert!(one(MIB, PAGE, 0, 1 << 30).contains("pages of"));
        assert!(one(MIB, PAGE, 0, 0).contains("pages of"));
        assert!(one(MIB, 4 * MIB, 0, HUGE_PAGE).contains("not made of"));
        assert!(one(MIB, 0, 0, PAGE).contains("not made of"));
        let two = |a: String, b: String| refused(&format!("[{a},{b}]"));
        assert!(two(mapping(MIB, MIB, 0, PAGE), mapping(MIB + PAGE, MIB, MIB, PAGE)).contains("Firecracker"));
        assert!(two(mapping(MIB, MIB, 0, PAGE), mapping(4 * MIB, MIB, PAGE, PAGE)).contains("memory file"));
    }
}
