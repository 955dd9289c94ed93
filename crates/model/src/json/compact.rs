//! Shortens JSON without changing what it says.

/// Returns a JSON text without the white space between its parts, and the depth of its nesting.
///
/// A line feed would end the `data:` line of an SSE event. Letters that are written as escapes (`\u0416`), as some
/// writers do with everything that is not ASCII, become the letters themselves, which need a third of the bytes.
pub fn compact(json: &str) -> (String, usize) {
    let (mut text, mut in_string) = (String::with_capacity(json.len()), false);
    let (mut depth, mut deepest) = (0usize, 0);
    let mut rest = json;
    while let Some(c) = rest.chars().next() {
        let mut length = c.len_utf8();
        if in_string && c == '\\' {
            if let Some((letter, length)) = letter_of(rest) {
                text.push(letter);
                rest = &rest[length..];
                continue;
            }
            // A quotation mark after a backslash does not end the string.
            length += rest[1..].chars().next().map_or(0, char::len_utf8);
        } else if in_string {
            in_string = c != '"';
        } else if c.is_ascii_whitespace() {
            rest = &rest[length..];
            continue;
        } else {
            in_string = c == '"';
            match c {
                '[' | '{' => depth += 1,
                ']' | '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            deepest = deepest.max(depth);
        }
        text.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    (text, deepest)
}

/// Returns the letter that the escape at the beginning of `text` stands for, and the length of the escape in bytes.
///
/// Returns `None` for any other escape, and for a letter that must be escaped in a JSON string.
fn letter_of(text: &str) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
    };
    let first = unit(0)?;
    let (letter, length) = match char::from_u32(first.into()) {
        Some(letter) => (letter, 6),
        None => (char::decode_utf16([first, unit(6)?]).next()?.ok()?, 12),
    };
    (!letter.is_control() && !['"', '\\'].contains(&letter)).then_some((letter, length))
}
