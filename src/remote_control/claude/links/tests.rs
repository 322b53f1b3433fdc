use super::*;

const PATTERN: &str = r"https://claude\.ai/code[/?][A-Za-z0-9_./?=&%~-]+";

#[test]
fn the_characters_of_a_url_are_those_of_the_standard() {
    let of_url: String = ('\0'..='\u{ff}').filter(|it| is_of_url(*it)).collect();
    let standard =
        "!#$%&'()*+,-./0123456789:;=?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_abcdefghijklmnopqrstuvwxyz~";
    assert_eq!(of_url, standard);
}

#[test]
fn the_host_of_a_pattern_is_known() {
    for (pattern, host) in [
        (PATTERN, "claude.ai"),
        (r"^https://claude\.ai/code/x$", "claude.ai"),
        (r"https://claude\.ai[/?]code", "claude.ai"),
        (r"https://claude\.ai(?:/code|\?code=)\w+", "claude.ai"),
        (r"https://localhost:8443/\w+", "localhost"),
        (r"(?x) https://claude\.ai/ \w+ # any", "claude.ai"),
    ] {
        assert_eq!(LinkPattern::new(pattern).unwrap().host(), host, "{pattern}");
    }
}

#[test]
fn a_pattern_must_name_its_host_to_the_end() {
    for pattern in [
        "",
        ".*",
        r"https://",
        r"https://claude\.ai",
        r"https://claude.ai/code/\w+",
        r"https://claude\.ai\w*/code",
        r"https://claude\.ai.*",
        r"https://(?:claude\.ai/)?\w+",
        r"https://[a-z.]+/code",
        r"http://claude\.ai/code/\w+",
        r"(?i)https://claude\.ai/code/\w+",
        r"https?://claude\.ai/code/\w+",
        r".*https://claude\.ai/code/\w+",
        r"https://claude\.ai/|x",
        r"https://claude\.ai@evil\.example/\w+",
        r"https://CLAUDE\.AI/\w+",
    ] {
        let refused = LinkPattern::new(pattern);
        assert!(matches!(refused, Err(PatternError::NoHost)), "{pattern}");
    }
}

#[test]
fn a_pattern_names_one_host() {
    let pattern = r"https://(?:claude\.ai|evil\.example)/code/\w+";
    assert!(matches!(
        LinkPattern::new(pattern),
        Err(PatternError::TwoHosts(one, other)) if one == "claude.ai" && other == "evil.example"
    ));
}

#[test]
fn what_does_not_compile_is_distinguished() {
    let broken = LinkPattern::new(r"https://claude\.ai/(");
    assert!(matches!(broken, Err(PatternError::Syntax(_))));
    let huge = LinkPattern::new(r"https://claude\.ai/\w{1000}{1000}");
    assert!(matches!(huge, Err(PatternError::TooLarge(_))));
}

#[test]
fn a_link_is_the_whole_text_without_the_punctuation_after_it() {
    let pattern = LinkPattern::new(PATTERN).unwrap();
    let link = |text: &str| Some(pattern.link_in_prose(text)?.1.expose().to_owned());
    let whole = "https://claude.ai/code/session_01AbC?from=cli";
    for after in ["", ".", ",", ")", ").", "?", "!", "...", "]", "**"] {
        assert_eq!(link(&format!("{whole}{after}")).as_deref(), Some(whole));
    }
}

#[test]
fn what_goes_on_after_the_match_is_no_link() {
    let pattern = LinkPattern::new(PATTERN).unwrap();
    for text in [
        "https://claude.ai/code",
        "https://claude.ai/code)",
        "https://claude.ai/code/.",
        "https://claude.ai/code?",
        "https://claude.ai/code/x#fragment",
        "https://claude.ai/code/x+y",
        "https://claude.ai.evil.example/code/x",
        "https://claude.ai@evil.example/code/x",
        "https://claude.ai:443@evil.example/code/x",
        "https://code.claude.com/docs/x",
    ] {
        assert!(pattern.link_in_prose(text).is_none(), "{text}");
    }
}

#[test]
fn the_host_of_a_link_is_checked_even_if_the_pattern_lets_others_through() {
    let pattern = LinkPattern::new(r"https://claude\.ai:\S+").unwrap();
    assert!(pattern.link("https://claude.ai:443/code/x").is_some());
    assert!(pattern.link("https://claude.ai:x@evil.example/").is_none());
}
