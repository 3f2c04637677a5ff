//! The status page: one document without anything outside it, which brings its first data along.

/// What stands for the data in the page.
const PLACE: &str = "{{overview}}";

const PAGE: &str = include_str!("page.html");

/// Nothing is loaded but the page itself, and it runs nothing but its own script: both are named by
/// their SHA-256.
pub const POLICY: &str = concat!(
    "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; ",
    "frame-ancestors 'none'; script-src '",
    "sha256-yZ8H/gEkuG1PK9v+844/badYiyMNtduuKlTI8pGJdUw=",
    "'; style-src '",
    "sha256-sxuD5XIXJ9L1Sg+gs72P4rj9wewYTdQ1YRoc8WN2zrE=",
    "'",
);

/// The page with an overview in it.
pub fn with(overview: &[u8]) -> Vec<u8> {
    let (before, behind) = PAGE.split_once(PLACE).expect("the page has the place");
    let mut page = Vec::with_capacity(PAGE.len() + overview.len());
    page.extend(before.as_bytes());
    for &byte in overview {
        // The one letter that could end the element that the data stands in; in JSON it is only ever
        // part of a string.
        match byte {
            b'<' => page.extend(b"\\u003c"),
            byte => page.push(byte),
        }
    }
    page.extend(behind.as_bytes());
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::BASE64;
    use sha2::{Digest, Sha256};

    #[test]
    fn the_policy_names_the_script_and_the_style_of_the_page() {
        for (start, end) in [("<script>", "</script>"), ("<style>", "</style>")] {
            assert_eq!(PAGE.matches(start).count(), 1, "{start}");
            let (_, from) = PAGE.split_once(start).unwrap();
            let (inside, _) = from.split_once(end).unwrap();
            let hash = BASE64.encode(&Sha256::digest(inside));
            let named = format!("'sha256-{hash}'");
            assert!(POLICY.contains(&named), "{start}: write {named}");
        }
        assert!(!PAGE.contains("style=") && !PAGE.contains(" onclick="));
    }

    #[test]
    fn data_stays_inside_its_element() {
        let page = with(br#"{"name":"</script><script>alert(1)</script>"}"#);
        let page = String::from_utf8(page).unwrap();
        assert_eq!(
            page.matches("</script>").count(),
            PAGE.matches("</script>").count()
        );
        let data = r#"{"name":"\u003c/script>\u003cscript>alert(1)\u003c/script>"}"#;
        assert!(page.contains(data));
    }

    #[test]
    fn the_page_loads_nothing_and_is_small() {
        assert!(!PAGE.contains("src=") && !PAGE.contains("@import"));
        for (at, _) in PAGE.match_indices("http") {
            // The name space of SVG is a name, not an address.
            assert!(PAGE[at..].starts_with("http://www.w3.org/2000/svg"));
        }
        assert!(PAGE.len() < 32 * 1024, "{} bytes", PAGE.len());
    }
}
