//! What is said of a look at everything that a start needs.

use super::{Reply, unmarked};

/// How long a report may be, in bytes of plain text. An event is 64 KiB at most, and holds the text twice, encrypted.
const LONGEST_REPORT: usize = 12 * 1024;

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What came of it, in one line.
    pub(crate) line: String,
    /// Whether nothing needs to be done about it.
    pub(crate) is_good: bool,
}

/// What was found on a host, in confidence: it names files and people.
pub(crate) fn report(host: &str, findings: &[Finding], summary: &str) -> Reply {
    let mut all: Vec<_> = findings.iter().collect();
    // What needs something done comes first: on a phone the rest is three screens.
    all.sort_by_key(|finding| finding.is_good);
    let mut left = LONGEST_REPORT;
    let fitting = all.iter().take_while(|finding| {
        let fits = finding.line.len() <= left;
        left = left.saturating_sub(finding.line.len());
        fits
    });
    let mut lines: Vec<_> = fitting.map(|finding| line(&finding.line)).collect();
    if lines.len() < findings.len() {
        let rest = findings.len() - lines.len();
        lines.push(line(&format!(
            "{rest} more: `rcbot check` on the host shows all."
        )));
    }
    let head = Reply::new(format!("This is what I found on {host}. {summary}"));
    let (plain, html): (Vec<_>, Vec<_>) = lines
        .into_iter()
        .map(|line| (line.plain, line.html))
        .unzip();
    Reply {
        plain: format!("{}\n\n{}", head.plain, plain.join("\n")),
        html: format!("<p>{}</p><p>{}</p>", head.html, html.join("<br>")),
    }
}

/// A homeserver's words may stand in it, which must not turn the rest into code.
fn line(text: &str) -> Reply {
    if text.matches('`').count().is_multiple_of(2) {
        Reply::new(text)
    } else {
        Reply::new(unmarked(text))
    }
}

/// There is none.
pub(crate) fn no_report(reason: &str) -> Reply {
    Reply::new(format!(
        "I could not examine this host: {}. Try again, or run `rcbot check` on the host.",
        unmarked(reason)
    ))
}

/// One report at a time is enough.
pub(crate) fn already_examining() -> Reply {
    Reply::new("I am looking already. Try again in a moment.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(line: &str, is_good: bool) -> Finding {
        let line = line.to_owned();
        Finding { line, is_good }
    }

    #[test]
    fn a_report_has_a_line_for_each_thing_in_both_forms_and_what_is_wrong_first() {
        let findings = [
            finding("✔ sync: answers", true),
            finding("✘ token: `M_X` <b>", false),
            finding("⚠ a ` of somebody else", false),
        ];
        let reply = report("build1", &findings, "1 check has failed.");
        assert_eq!(
            reply.plain,
            "This is what I found on build1. 1 check has failed.\n\n✘ token: `M_X` <b>\n⚠ a ' of somebody else\n✔ sync: answers"
        );
        assert_eq!(
            reply.html,
            "<p>This is what I found on build1. 1 check has failed.</p><p>✘ token: <code>M_X</code> &lt;b&gt;<br>⚠ a ' of \
             somebody else<br>✔ sync: answers</p>"
        );
    }

    #[test]
    fn a_long_report_says_what_is_wrong_first_and_fits_into_an_event() {
        let long = "x".repeat(100);
        let mut findings = vec![finding(&long, true); 1_000];
        findings.push(finding("✘ token: wrong", false));
        let reply = report("build1", &findings, "1 check has failed.");
        let begin = "This is what I found on build1. 1 check has failed.\n\n✘ token: wrong\nxxx";
        assert!(reply.plain.starts_with(begin), "{}", reply.plain);
        let end = "\n878 more: `rcbot check` on the host shows all.";
        assert!(reply.plain.ends_with(end), "{}", reply.plain);
        let findings = vec![finding(&long, false); 1_000];
        let reply = report("build1", &findings, "1000 checks have failed.");
        assert!(reply.plain.len() + reply.html.len() < 30_000);
        assert!(reply.plain.contains("878 more"), "{}", reply.plain);
    }
}
