//! How is a name or a password in Unicode compared? OpaqueString. (RFC 8265 section 4.2)

use unicode_normalization::UnicodeNormalization as _;

/// What a client makes of a text before it sends or hashes it, so that an administrator may have typed it in another way.
// RFC 8489 sections 9.2.2, 14.3 and 14.9: USERNAME, REALM and the password are processed with this profile. Requests bring
// what the client has processed, so this is for the configuration alone. Code points that no version of Unicode assigns are
// left to the client, which refuses to send them.
pub(super) fn opaque_string(text: &str) -> String {
    // RFC 8265 section 4.2.2: "Any instances of non-ASCII space MUST be mapped to SPACE (U+0020)", then normalization
    // form C.
    let spaces = text.chars().map(|c| if is_space(c) { ' ' } else { c });
    spaces.nfc().collect()
}

/// Whether this is a space of some script: general category Zs.
fn is_space(c: char) -> bool {
    matches!(
        c,
        '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_compared_as_rfc8265_says() {
        let check = |text, expected| assert_eq!(opaque_string(text), expected, "{text:?}");
        // RFC 8265 section 4.3, tables 3 and 4.
        check("correct horse battery staple", "correct horse battery staple");
        check("Correct Horse Battery Staple", "Correct Horse Battery Staple");
        check("\u{3c0}\u{df}\u{e5}", "\u{3c0}\u{df}\u{e5}");
        check("Jack of \u{2666}s", "Jack of \u{2666}s");
        check("foo\u{1680}bar", "foo bar");
        // Normalization form C: composed, and compatibility characters as they are.
        check("re\u{301}sume\u{301}", "r\u{e9}sum\u{e9}");
        check("\u{212b}", "\u{c5}");
        check("\u{2168}", "\u{2168}");
        // RFC 8489 appendix B.1.
        check(
            "\u{30de}\u{30c8}\u{30ea}\u{30c3}\u{30af}\u{30b9}",
            "\u{30de}\u{30c8}\u{30ea}\u{30c3}\u{30af}\u{30b9}",
        );
    }
}
