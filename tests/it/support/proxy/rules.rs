//! The rules for requests.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use serde_json::Value;
use tokio::sync::Semaphore;

use super::{
    answer::{Answer, Transport},
    request::Request,
};

type Matches = Box<dyn Fn(&Request) -> bool + Send + Sync>;
type Change = Box<dyn Fn(&Request, &mut Answer) + Send + Sync>;

struct Rule {
    matches: Matches,
    /// For how many more requests; `None`: for all.
    times: Option<usize>,
    effect: Arc<Effect>,
}

pub(super) enum Effect {
    /// The request waits before it reaches the homeserver.
    Hold(Arc<Gate>),
    /// The proxy answers, and the request does not reach the homeserver.
    Answer(Box<dyn Fn() -> Answer + Send + Sync>),
    /// The answer is changed on its way back.
    Change(Change),
}

pub(super) struct Gate {
    has_caught: AtomicBool,
    /// Has no permits: requests wait until it is closed.
    opens: Semaphore,
}

/// The rules of a proxy, in the order in which they were added.
#[derive(Default)]
pub(super) struct Rules(Mutex<Vec<Rule>>);

/// Builds a rule. The last method sets its effect: `answer`, `replace_answer`, `rewrite`, `hold`, `cut`, `slow_down`.
pub(crate) struct RuleBuilder<'a> {
    rules: &'a Rules,
    matches: Matches,
    times: Option<usize>,
}

/// Waiting requests. Dropping it lets them go on.
pub(crate) struct Held(Arc<Gate>);

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

    /// The effects on this request, which counts for `times`.
    pub(super) fn apply(&self, request: &Request) -> Vec<Arc<Effect>> {
        let mut effects = Vec::new();
        for rule in &mut *self.0.lock().unwrap() {
            if rule.times == Some(0) || !(rule.matches)(request) {
                continue;
            }
            rule.times = rule.times.map(|times| times - 1);
            effects.push(Arc::clone(&rule.effect));
        }
        effects
    }
}

impl RuleBuilder<'_> {
    /// For this many requests; the default is all.
    pub(crate) fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    /// The proxy answers, and the request does not reach the homeserver.
    pub(crate) fn answer(self, answer: Answer) {
        self.answer_with(move || answer.clone());
    }

    /// The same, with an answer made for each request.
    pub(crate) fn answer_with(self, answer: impl Fn() -> Answer + Send + Sync + 'static) {
        self.add(Effect::Answer(Box::new(answer)));
    }

    /// The homeserver executes the request, and the bot gets this instead of the answer.
    pub(crate) fn replace_answer(self, other: Answer) {
        self.change(move |_, answer| *answer = other.clone());
    }

    /// The homeserver's answer is changed.
    pub(crate) fn rewrite(self, change: impl Fn(&Request, &mut Value) + Send + Sync + 'static) {
        self.change(move |request, answer| {
            let mut body = answer.json_body();
            change(request, &mut body);
            answer.set_json_body(&body);
        });
    }

    /// The homeserver's answer is cut off in the middle.
    pub(crate) fn cut(self) {
        self.change(|_, answer| answer.transport = Transport::Cut);
    }

    /// The homeserver's answer comes slowly, in pieces.
    pub(crate) fn slow_down(self) {
        self.change(|_, answer| answer.transport = Transport::Slow);
    }

    /// The requests wait before they reach the homeserver.
    pub(crate) fn hold(self) -> Held {
        let gate = Arc::new(Gate {
            has_caught: AtomicBool::new(false),
            opens: Semaphore::new(0),
        });
        self.add(Effect::Hold(Arc::clone(&gate)));
        Held(gate)
    }

    fn change(self, change: impl Fn(&Request, &mut Answer) + Send + Sync + 'static) {
        self.add(Effect::Change(Box::new(change)));
    }

    fn add(self, effect: Effect) {
        self.rules.0.lock().unwrap().push(Rule {
            matches: self.matches,
            times: self.times,
            effect: Arc::new(effect),
        });
    }
}

impl Gate {
    pub(super) async fn wait(&self) {
        self.has_caught.store(true, Ordering::Relaxed);
        // It ends with an error, as there are no permits.
        self.opens.acquire().await.ok();
    }
}

impl Held {
    /// Whether a request waits or has waited.
    pub(crate) fn has_caught(&self) -> bool {
        self.0.has_caught.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.opens.close();
    }
}
