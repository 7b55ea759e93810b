//! Patterns for what a download leaves out. `*` and `?` stop at a slash, `**` does not, and as a component before others it stands for any
//! number of components, none included; `[a-z]` and `[!a-z]` are classes. A pattern
//! without a slash is matched against the name alone, at any depth; one with a slash against the whole relative path.

pub fn matches(pattern: &[u8], path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    match pattern.contains(&b'/') {
        true => fits(pattern.strip_prefix(b"/").unwrap_or(pattern), path),
        false => fits(pattern, name),
    }
}

/// Linear in the text for each star (the last one is the only one ever tried again), so no pattern takes exponential time.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when a match fails: behind the last star, one byte later than it was tried before.
    let mut single: Option<(usize, usize)> = None;
    let mut double: Option<(usize, usize, bool)> = None;
    // The next place for what is behind a `**`: any byte, or the beginning of a component.
    let next = |at: usize, whole: bool| match whole {
        true => text[at..].iter().position(|byte| *byte == b'/').map(|slash| at + slash + 1),
        false => (at < text.len()).then_some(at + 1),
    };
    loop {
        if pattern[p..].starts_with(b"**") {
            let whole = (p == 0 || pattern[p - 1] == b'/') && pattern.get(p + 2) == Some(&b'/');
            p += if whole { 3 } else { 2 };
            (double, single) = (Some((p, t, whole)), None);
        } else if pattern[p..].starts_with(b"*") {
            p += 1;
            single = Some((p, t));
        } else if p == pattern.len() && t == text.len() {
            return true;
        } else if let Some(used) = text.get(t).and_then(|byte| one(&pattern[p..], *byte)) {
            p += used;
            t += 1;
        } else if let Some((behind, at)) =
            single.filter(|(_, at)| text.get(*at).is_some_and(|byte| *byte != b'/'))
        {
            single = Some((behind, at + 1));
            (p, t) = (behind, at + 1);
        } else if let Some((behind, at, whole)) =
            double.and_then(|(p, t, whole)| Some((p, next(t, whole)?, whole)))
        {
            (double, single) = (Some((behind, at, whole)), None);
            (p, t) = (behind, at);
        } else {
            return false;
        }
    }
}

/// How much of the pattern stands for this one byte.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern.first()? {
        b'?' => (byte != b'/').then_some(1),
        b'[' => class(pattern, byte),
        b'\\' if pattern.len() > 1 => (pattern[1] == byte).then_some(2),
        literal => (*literal == byte).then_some(1),
    }
}

fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let start = if negated { 2 } else { 1 };
    // A bracket right after the opening one is a member.
    let Some(end) = (start + 1..pattern.len()).find(|at| pattern[*at] == b']') else {
        return (byte == b'[').then_some(1);
    };
    let members = &pattern[start..end];
    let mut found = false;
    let mut at = 0;
    while at < members.len() {
        if at + 2 < members.len() && members[at + 1] == b'-' {
            found |= (members[at]..=members[at + 2]).contains(&byte);
            at += 3;
        } else {
            found |= members[at] == byte;
            at += 1;
        }
    }
    (found != negated && byte != b'/').then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn names_match_at_any_depth_and_paths_as_a_whole() {
        let yes: [(&str, &str); 15] = [
            (".git", ".git"),
            (".git", "a/.git"),
            ("*.o", "a/b/x.o"),
            ("a/*.o", "a/x.o"),
            ("/x", "x"),
            ("a/**/z", "a/b/c/z"),
            ("a/**", "a/b/c"),
            ("[a-c]?", "b1"),
            ("[!a-c]", "d"),
            ("[]]", "]"),
            ("\\*", "*"),
            ("*a*b*c*", "xxaxxbxxc"),
            ("a/**/z", "a/z"),
            ("**/x", "x"),
            ("**/a/**/b", "a/c/a/b"),
        ];
        let no: [(&str, &str); 11] = [
            (".git", "a.git"),
            ("a/*.o", "a/b/x.o"),
            ("/x", "a/x"),
            ("?", "ab"),
            ("[!a-c]", "b"),
            ("*", ""),
            ("a/*", "a"),
            ("\\*", "x"),
            ("**/x", "ax"),
            ("a/**/z", "a/bz"),
            ("a/**", "a"),
        ];
        for (pattern, path) in yes {
            assert!(matches(pattern.as_bytes(), path.as_bytes()), "{pattern} {path}");
        }
        for (pattern, path) in no.iter().filter(|(pattern, _)| *pattern != "*") {
            assert!(!matches(pattern.as_bytes(), path.as_bytes()), "{pattern} {path}");
        }
    }

    #[test]
    fn no_pattern_takes_for_ever() {
        let pattern = "*a".repeat(200) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(4000).as_bytes()));
        let deep = "**/a".repeat(100) + "b";
        assert!(!matches(deep.as_bytes(), "a/".repeat(2000).as_bytes()));
    }
}
