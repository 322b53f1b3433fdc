//! What becomes of requests.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::Value;
use tokio::sync::watch;

use super::{
    answer::{Answer, Transport},
    request::Request,
};

type Matches = Box<dyn Fn(&Request) -> bool + Send + Sync>;
type Rewrite = Box<dyn Fn(&Request, &mut Value) + Send + Sync>;

struct Rule {
    matches: Matches,
    /// How many requests more; none: without end.
    times: Option<usize>,
    effect: Arc<Effect>,
}

enum Effect {
    /// The proxy answers with one after the other of these, and the homeserver hears nothing of it; and how many were given.
    Answer(Vec<Answer>, Arc<AtomicUsize>),
    /// The homeserver does what was asked, and the bot hears this.
    Replace(Answer),
    /// The homeserver's answer is changed.
    Rewrite(Rewrite),
    /// The request waits before the homeserver hears of it.
    Hold(Arc<Gate>),
    /// The way back is bad.
    Transport(Transport),
}

struct Gate {
    arrived: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

/// The rules of a proxy, in the order in which they were made.
#[derive(Default)]
pub(super) struct Rules(Mutex<Vec<Rule>>);

/// A rule to be. The last word says what happens: `answer`, `replace_answer`, `rewrite`, `hold`, `cut`, `slow_down`.
pub(crate) struct RuleBuilder<'a> {
    rules: &'a Rules,
    matches: Matches,
    times: Option<usize>,
}

/// Requests that wait. Dropping it lets them go on.
pub(crate) struct Held(Arc<Gate>);

/// What the rules say to one request.
pub(super) struct Verdict(Vec<Arc<Effect>>);

impl Rules {
    pub(super) fn build(&self, matches: Matches) -> RuleBuilder<'_> {
        RuleBuilder {
            rules: self,
            matches,
            times: None,
        }
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    pub(super) fn judge(&self, request: &Request) -> Verdict {
        let mut effects = Vec::new();
        for rule in &mut *self.0.lock().unwrap() {
            if rule.times == Some(0) || !(rule.matches)(request) {
                continue;
            }
            rule.times = rule.times.map(|times| times - 1);
            effects.push(Arc::clone(&rule.effect));
        }
        Verdict(effects)
    }
}

impl RuleBuilder<'_> {
    /// For so many requests; without this, for all.
    pub(crate) fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    /// The proxy answers, and the homeserver hears nothing of it.
    pub(crate) fn answer(self, answer: Answer) {
        self.answer_in_turn(vec![answer]);
    }

    /// The proxy answers, each time with the next of these, and begins again after the last. Counts the answers.
    pub(crate) fn answer_in_turn(self, answers: Vec<Answer>) -> Arc<AtomicUsize> {
        let given = Arc::<AtomicUsize>::default();
        self.add(Effect::Answer(answers, Arc::clone(&given)));
        given
    }

    /// The homeserver does what was asked, and the bot hears this instead of the answer.
    pub(crate) fn replace_answer(self, answer: Answer) {
        self.add(Effect::Replace(answer));
    }

    /// The homeserver's answer is changed.
    pub(crate) fn rewrite(self, change: impl Fn(&Request, &mut Value) + Send + Sync + 'static) {
        self.add(Effect::Rewrite(Box::new(change)));
    }

    /// The homeserver's answer breaks off in the middle.
    pub(crate) fn cut(self) {
        self.add(Effect::Transport(Transport::Cut));
    }

    /// The homeserver's answer comes in drops.
    pub(crate) fn slow_down(self) {
        self.add(Effect::Transport(Transport::Slow));
    }

    /// The requests wait before the homeserver hears of them.
    pub(crate) fn hold(self) -> Held {
        let gate = Arc::new(Gate {
            arrived: watch::Sender::new(0),
            open: watch::Sender::new(false),
        });
        self.add(Effect::Hold(Arc::clone(&gate)));
        Held(gate)
    }

    fn add(self, effect: Effect) {
        self.rules.0.lock().unwrap().push(Rule {
            matches: self.matches,
            times: self.times,
            effect: Arc::new(effect),
        });
    }
}

impl Held {
    /// Whether a request waits, or did.
    pub(crate) fn has_caught(&self) -> bool {
        *self.0.arrived.borrow() > 0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.open.send_replace(true);
    }
}

impl Verdict {
    /// Waits as long as the request is held.
    pub(super) async fn wait(&self) {
        for effect in &self.0 {
            if let Effect::Hold(gate) = &**effect {
                let mut open = gate.open.subscribe();
                gate.arrived.send_modify(|arrived| *arrived += 1);
                // Without its gate, a request goes on as well.
                open.wait_for(|open| *open).await.ok();
            }
        }
    }

    /// The proxy's own answer, if it has one.
    pub(super) fn answer(&self) -> Option<Answer> {
        self.0.iter().find_map(|effect| match &**effect {
            Effect::Answer(answers, given) => {
                let turn = given.fetch_add(1, Ordering::Relaxed);
                answers.iter().cycle().nth(turn).cloned()
            }
            _ => None,
        })
    }

    /// Changes the answer on its way back.
    pub(super) fn change(&self, request: &Request, answer: &mut Answer) {
        for effect in &self.0 {
            match &**effect {
                Effect::Answer(..) | Effect::Hold(_) => {}
                Effect::Replace(other) => *answer = other.clone(),
                Effect::Rewrite(rewrite) => {
                    let mut body = answer.json_body();
                    rewrite(request, &mut body);
                    answer.set_json_body(&body);
                }
                Effect::Transport(transport) => answer.transport(*transport),
            }
        }
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Rules").finish_non_exhaustive()
    }
}
