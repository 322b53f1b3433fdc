//! Where commands wait to be judged: one at a time for each sender, in the order in which they were sent. It also counts who
//! was told what, and when, so that nobody is told too often.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use matrix_sdk::ruma::{OwnedUserId, UserId};
use tracing::warn;

use super::rate::{Excess, Rate};
use crate::{
    command::{self, Command, Misuse, Policy},
    config::Config,
    matrix::Message,
    remote_control::{ProjectName, Status},
};

/// How many commands of one sender may wait. Nobody types so fast; a script may.
const WAITING_PER_SENDER: usize = 100;

/// A denial is answered once per user in this time.
const DENIALS_APART: Duration = Duration::from_mins(1);

/// Who cannot be understood is told so once in this time: not all that people say to one another is meant for the bot.
const UNDECRYPTABLE_APART: Duration = Duration::from_hours(1);

/// Who chats with the bot is told what it is once in this time.
const HINTS_APART: Duration = Duration::from_hours(1);

/// A command, and all that judging it takes but the homeserver's word.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) message: Message,
    pub(super) command: Result<Command, Misuse>,
    pub(super) statuses: Vec<Status>,
    pub(super) config: Arc<Config>,
}

/// The commands that wait, and the denials that were answered.
pub(super) struct Desk {
    config: Arc<Config>,
    /// A sender with an entry has a command under judgement; those behind it wait.
    waiting: HashMap<OwnedUserId, VecDeque<Message>>,
    denials: HashMap<OwnedUserId, Instant>,
    undecryptable: HashMap<OwnedUserId, Instant>,
    hints: HashMap<OwnedUserId, Instant>,
    rate: Rate,
}

impl Desk {
    pub(super) fn new(config: &Arc<Config>) -> Self {
        Self {
            config: Arc::clone(config),
            waiting: HashMap::new(),
            denials: HashMap::new(),
            undecryptable: HashMap::new(),
            hints: HashMap::new(),
            rate: Rate::new(config.limits.commands_per_minute),
        }
    }

    /// Counts a message of this user. Nothing is asked of the homeserver for one that is too many.
    ///
    /// # Errors
    /// [`Excess`].
    pub(super) fn count(&mut self, sender: &UserId) -> Result<(), Excess> {
        self.rate.count(sender, Instant::now())
    }

    /// Takes a message in; gives it back as a case if it is the sender's turn.
    pub(super) fn take_in(&mut self, message: Message, statuses: &[Status]) -> Option<Case> {
        match self.waiting.get_mut(&message.sender) {
            Some(queue) if queue.len() >= WAITING_PER_SENDER => {
                warn!(sender = %message.sender, "command dropped, too many of this sender wait");
                None
            }
            Some(queue) => {
                queue.push_back(message);
                None
            }
            None => {
                let case = self.open(message, statuses)?;
                self.waiting
                    .insert(case.message.sender.clone(), VecDeque::new());
                Some(case)
            }
        }
    }

    /// The sender's next case, once the one before is judged.
    pub(super) fn next_of(&mut self, sender: &UserId, statuses: &[Status]) -> Option<Case> {
        while let Some(message) = self.waiting.get_mut(sender).and_then(VecDeque::pop_front) {
            if let Some(case) = self.open(message, statuses) {
                return Some(case);
            }
        }
        self.waiting.remove(sender);
        None
    }

    /// Whether a denial is to be answered now, and not for a while after.
    pub(super) fn may_answer_denial(&mut self, user: &UserId) -> bool {
        is_due(&mut self.denials, user, DENIALS_APART)
    }

    /// Whether a sender is to be told now that they cannot be understood, and not for a while after.
    pub(super) fn may_tell_undecryptable(&mut self, user: &UserId) -> bool {
        is_due(&mut self.undecryptable, user, UNDECRYPTABLE_APART)
    }

    /// Whether a user who chats with the bot is to be told now what it is, and not for a while after.
    pub(super) fn may_hint(&mut self, user: &UserId) -> bool {
        is_due(&mut self.hints, user, HINTS_APART)
    }

    /// `None`: it is not meant for the bot.
    fn open(&self, message: Message, statuses: &[Status]) -> Option<Case> {
        let command = command::parse(&self.config.command_prefix, &message.text)?;
        Some(Case {
            message,
            command,
            statuses: statuses.to_vec(),
            config: Arc::clone(&self.config),
        })
    }

    /// What this project asks of whoever commands it or gets its link.
    pub(super) fn policy(&self, project: Option<&ProjectName>) -> Policy {
        Policy::of(&self.config, project)
    }
}

/// Whether this user was last told longer ago than `apart`; if so, now counts.
fn is_due(told: &mut HashMap<OwnedUserId, Instant>, user: &UserId, apart: Duration) -> bool {
    told.retain(|_, time| time.elapsed() < apart);
    let due = !told.contains_key(user);
    if due {
        told.insert(user.to_owned(), Instant::now());
    }
    due
}
