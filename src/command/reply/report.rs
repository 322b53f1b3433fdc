//! The report of `doctor`, and the warning of a login that ends.

use std::{borrow::Cow, time::Duration};

use super::{Reply, unmarked};

/// How long a report may be, in bytes of plain text. An event is 64 KiB at most, and holds the text twice, encrypted.
const LONGEST_REPORT: usize = 12 * 1024;

/// How much of one finding is shown, in bytes: the words of a homeserver must not hide the findings behind it.
const LONGEST_FINDING: usize = 2 * 1024;

/// What was found on a host, in confidence: it names files and people. What has failed comes first.
pub(crate) fn report(host: &str, summary: &str, findings: &[String]) -> Reply {
    let mut left = LONGEST_REPORT;
    let findings = findings.iter().map(|finding| shortened(finding));
    let number = findings.len();
    let fitting = findings.take_while(|finding| {
        let fits = finding.len() <= left;
        left = left.saturating_sub(finding.len());
        fits
    });
    let mut lines: Vec<_> = fitting.map(|finding| line(&finding)).collect();
    let rest = number - lines.len();
    lines.push(line(&if rest > 0 {
        format!("{rest} more: `rcbot check --verbose` on the host lists all.")
    } else {
        "`rcbot check --verbose` on the host lists all.".to_owned()
    }));
    let head = Reply::new(format!("**Check of {host}**: {summary}"));
    Reply::paragraphs([head, Reply::lines(lines)])
}

fn shortened(finding: &str) -> Cow<'_, str> {
    match finding.split_at(finding.floor_char_boundary(LONGEST_FINDING)) {
        (whole, "") => whole.into(),
        (beginning, _) => format!("{beginning} (and so on)").into(),
    }
}

/// It may quote a homeserver, whose words must not turn the rest into code.
fn line(text: &str) -> Reply {
    if text.matches('`').count().is_multiple_of(2) {
        Reply::new(text)
    } else {
        Reply::new(unmarked(text))
    }
}

pub(crate) fn no_report(reason: &str) -> Reply {
    Reply::new(format!(
        "I could not check this host: {}. Try again, or run `rcbot check` on the host.",
        unmarked(reason)
    ))
}

/// The login of `claude` is about to end; sent once a day.
pub(crate) fn login_ends(host: &str, projects: &[String], left: Duration) -> Reply {
    let hours = left.as_secs().div_ceil(60 * 60);
    let left = if hours > 48 {
        format!("{} days", hours / 24)
    } else {
        format!("{hours} hours")
    };
    let projects = unmarked(&projects.join(", "));
    Reply::new(format!(
        "claude's login on {} ends in {left}, and with it the sessions of: {projects}. To renew it, run `claude auth login` on \
         the host as the user that the bot runs as.",
        unmarked(host)
    ))
}

/// One report at a time is enough.
pub(crate) fn already_examining() -> Reply {
    Reply::new("A check is already running. Try again in a moment.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_a_line_for_each_thing_in_both_forms() {
        let findings = ["✘ token: `M_X` <b>", "⚠ a ` of somebody else"].map(str::to_owned);
        let reply = report("build1", "2 checks: 1 failed.", &findings);
        assert_eq!(
            reply.plain,
            "Check of build1: 2 checks: 1 failed.\n\n✘ token: `M_X` <b>\n⚠ a ' of somebody else\n\
             `rcbot check --verbose` on the host lists all."
        );
        assert_eq!(
            reply.html,
            "<p><strong>Check of build1</strong>: 2 checks: 1 failed.</p><p>✘ token: <code>M_X</code> &lt;b&gt;<br>⚠ a ' of \
             somebody else<br><code>rcbot check --verbose</code> on the host lists all.</p>"
        );
    }

    #[test]
    fn the_time_left_of_a_login_is_in_hours_or_in_days() {
        let left = |hours| login_ends("build1", &["api".to_owned()], Duration::from_hours(hours));
        assert!(left(30).plain.contains(" ends in 30 hours, and with it"));
        assert!(left(97).plain.contains(" ends in 4 days, and with it"));
    }

    #[test]
    fn a_long_report_fits_into_an_event() {
        let findings = vec!["x".repeat(100); 1_000];
        let reply = report("build1", "1000 checks: 1000 failed.", &findings);
        assert!(reply.plain.len() + reply.html.len() < 30_000);
        assert!(reply.plain.contains("878 more"), "{}", reply.plain);
    }

    #[test]
    fn a_long_finding_is_shortened_and_hides_no_other() {
        let findings = ["é".repeat(20_000), "✘ login: missing".to_owned()];
        let reply = report("build1", "2 checks: 2 failed.", &findings);
        assert!(
            reply
                .plain
                .contains("\n✘ login: missing\n`rcbot check --verbose`")
        );
        assert!(reply.plain.contains("éé (and so on)\n") && reply.plain.len() < 3_000);
    }
}
