//! Questions to file systems that may never answer, as one on a dead network does.

use std::{
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

/// How long a file system may take to answer: a disk that sleeps takes some seconds to wake up.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// A question that was asked in its own thread, which goes on where there is no answer.
pub(crate) struct Asked<T>(Receiver<T>);

pub(crate) fn ask<T: Send + 'static>(question: impl FnOnce() -> T + Send + 'static) -> Asked<T> {
    let (answer, answers) = channel();
    // Without a thread there is no answer either.
    let thread = thread::Builder::new();
    drop(thread.spawn(move || answer.send(question()).ok()));
    Asked(answers)
}

/// Asks all of them at once, and gives up together on those that have not answered within [`LIMIT`]: `None`.
pub(crate) fn ask_all<K, T: Send + 'static>(
    questions: impl Iterator<Item = (K, impl FnOnce() -> T + Send + 'static)>,
) -> impl Iterator<Item = (K, Option<T>)> {
    let began = Instant::now();
    let asked: Vec<_> = questions
        .map(|(key, question)| (key, ask(question)))
        .collect();
    asked
        .into_iter()
        .map(move |(key, asked)| (key, asked.answer(began)))
}

impl<T> Asked<T> {
    /// The answer. `None`: it did not come within [`LIMIT`] of this moment.
    pub(crate) fn answer(self, asked: Instant) -> Option<T> {
        let left = LIMIT.saturating_sub(asked.elapsed());
        self.0.recv_timeout(left).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_that_does_not_come_is_given_up() {
        let (go_on, hangs) = channel::<()>();
        let hanging = ask(move || hangs.recv().is_err());
        let long_ago = Instant::now().checked_sub(LIMIT).unwrap();
        assert_eq!(hanging.answer(long_ago), None);
        drop(go_on);
        assert_eq!(ask(|| 7).answer(Instant::now()), Some(7));
    }
}
