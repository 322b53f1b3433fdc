//! Prompt to a person at a terminal, one after the other, each until the answer will do.

use std::io::{BufRead, Write};

use anyhow::bail;

/// Somebody who is asked.
pub(super) struct Prompt<R, W> {
    keyboard: R,
    screen: W,
}

impl<R: BufRead, W: Write> Prompt<R, W> {
    pub(super) fn new(keyboard: R, screen: W) -> Self {
        Self { keyboard, screen }
    }

    /// Asks until `check` takes the answer, and shows why it does not. An empty answer takes what is offered.
    pub(super) fn ask<T>(
        &mut self,
        question: &str,
        offer: Option<&str>,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> anyhow::Result<T> {
        loop {
            match offer {
                Some(offer) => write!(self.screen, "{question} [{offer}]: ")?,
                None => write!(self.screen, "{question}: ")?,
            }
            self.screen.flush()?;
            let mut line = String::new();
            if self.keyboard.read_line(&mut line)? == 0 {
                bail!("no answer came, so nothing was written");
            }
            let answer = match (unquoted(line.trim()), offer) {
                ("", Some(offer)) => offer,
                (answer, _) => answer,
            };
            match check(answer) {
                Ok(checked) => return Ok(checked),
                Err(reason) => self.say(&format!("  {reason}"))?,
            }
        }
    }

    /// What was given, else the answer to a question.
    pub(super) fn unless_given<T>(
        &mut self,
        given: Option<T>,
        question: &str,
        offer: Option<&str>,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> anyhow::Result<T> {
        given.map_or_else(|| self.ask(question, offer, check), Ok)
    }

    /// Tells something that is no question.
    pub(super) fn say(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(writeln!(self.screen, "{text}")?)
    }
}

/// People who know YAML type quotes.
fn unquoted(answer: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = answer
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote))
        {
            return inner;
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even(answer: &str) -> Result<u32, String> {
        let number: u32 = answer
            .parse()
            .map_err(|_| format!("{answer:?} is not a number"))?;
        number
            .is_multiple_of(2)
            .then_some(number)
            .ok_or_else(|| format!("{number} is odd"))
    }

    #[test]
    fn a_bad_answer_is_asked_again_with_the_reason() {
        let mut screen = Vec::new();
        let mut prompt = Prompt::new("three\n3\n\n '4' \n".as_bytes(), &mut screen);
        assert_eq!(prompt.ask("Which", None, even).unwrap(), 4);
        assert_eq!(
            String::from_utf8(screen).unwrap(),
            "Which:   \"three\" is not a number\nWhich:   3 is odd\nWhich:   \"\" is not a number\nWhich: "
        );
    }

    #[test]
    fn an_empty_answer_takes_what_is_offered_and_none_ends_it() {
        let mut screen = Vec::new();
        let mut prompt = Prompt::new("\n".as_bytes(), &mut screen);
        assert_eq!(prompt.ask("Which", Some("6"), even).unwrap(), 6);
        let error = prompt.ask("Which", Some("6"), even).unwrap_err();
        assert_eq!(error.to_string(), "no answer came, so nothing was written");
        assert_eq!(String::from_utf8(screen).unwrap(), "Which [6]: Which [6]: ");
    }
}
