//! Executes a command once it is judged.

use std::time::{Duration, SystemTime};

use tokio::{task::spawn_blocking, time::timeout};
use tracing::error;

use super::{
    Bot,
    answer::{self, ReplyTarget},
    audit::{self, Conclusion},
    deliver::Trigger,
    hosts,
    judge::{Decision, Intent, Prepared},
    queue::Limited,
};
use crate::{
    command::{
        Permit, Policy,
        reply::{self, OtherHost, Secret},
    },
    matrix::{Chain, Message, ReplyTo},
    remote_control::{self, Request, Usages},
};

/// How many executed commands are remembered: more than come within the age at which a command is too old to be edited.
const REMEMBERED_COMMANDS: usize = 256;

/// How long an overview waits for it: the kernel can keep a reader of /proc waiting for as long as a process hangs in it.
const USAGE_TIMEOUT: Duration = Duration::from_secs(5);

impl Bot {
    /// Rejects a command beyond the rate limit. Its sender gets one refusal a minute, this or another.
    pub(super) fn reject_excess(&mut self, message: &Message) {
        if !self.limits.allow(Limited::Excess, &message.sender) {
            return;
        }
        audit::rate_limited(&self.config.command_prefix, message);
        if self.limits.allow(Limited::Refusal, &message.sender) {
            let limit = self.config.commands_per_minute;
            self.say_for_all(&reply::too_many_commands(limit), message.into());
        }
    }

    pub(super) fn execute(&mut self, message: &Message, decision: Decision) {
        let prefix = &self.config.command_prefix;
        audit::judged(prefix, message, &decision);
        match decision {
            // Nobody expects an answer to an edit.
            Decision::Denied(_) if message.edits.is_some() => {}
            Decision::Denied(denied) => {
                if self.limits.allow(Limited::Refusal, &message.sender) {
                    self.say(&reply::denied(&denied), Some(message.into()));
                    if let Some(text) = reply::denied_to_device(&denied) {
                        self.react(message, text);
                    }
                }
            }
            Decision::Misused(misuse) => {
                let text = reply::misuse(prefix, &misuse);
                self.say(&text, Some(message.into()));
            }
            Decision::CannotDeliver(project, reason) => {
                let text = reply::undeliverable(&Secret::Link(project), &reason);
                self.say(&text, Some(message.into()));
            }
            Decision::Do(permit, intent, mut prepared) => {
                self.note_executed(message);
                if let Some(found) = prepared.found.take()
                    && self.remote_control.add_project(found.project.clone())
                {
                    self.projects.remember(*found);
                }
                self.carry_out(message.into(), &permit, intent, prepared);
            }
            Decision::NotOurs | Decision::DoneBefore => {}
        }
    }

    fn note_executed(&mut self, message: &Message) {
        if self.executed.len() >= REMEMBERED_COMMANDS {
            self.executed.pop_front();
        }
        self.executed.push_back(message.event_id.clone());
    }

    fn carry_out(
        &mut self,
        reply_to: ReplyTo,
        permit: &Permit,
        intent: Intent,
        prepared: Prepared,
    ) {
        let request = Request {
            requester: permit.requester().to_string(),
            reference: ReplyTarget::Message(reply_to.clone()).to_text(),
        };
        let answered = Conclusion::new("answered");
        match intent {
            Intent::Start {
                project,
                asked: start,
                complete,
            } => {
                if self.session_of(&project).is_none() {
                    let configured = self.projects.get(&project);
                    let policy = Policy::of_session(&self.config, configured, &complete);
                    if permit.power_level() < policy.authorization.power_level {
                        // They were judged for the link of a session that has ended since, and this one needs more.
                        let text = reply::stopping(&project);
                        return self.conclude(&project, &request, &text, "refused while stopping");
                    }
                }
                let notices = self.remote_control.start(&project, start, request);
                // What is delivered at once goes to the requester who was just judged.
                let trigger = Trigger::Command {
                    judged: prepared.asked,
                    power_level: permit.power_level(),
                };
                self.handle_all(notices, trigger, prepared.proving);
            }
            Intent::Stop(project) => {
                let notices = self.remote_control.stop(&project, request);
                self.handle(notices);
            }
            Intent::Extend(project, by) => {
                let notices = self.remote_control.extend(&project, by, request);
                self.handle(notices);
            }
            Intent::Logs(project, excerpt) => {
                self.show_output(project, excerpt, permit, request);
            }
            Intent::Status { elsewhere } => {
                self.show_status(reply_to, elsewhere);
                audit::done(&request, None, &answered);
            }
            Intent::Projects { word, elsewhere } => {
                self.show_projects(word, reply_to, elsewhere);
                audit::done(&request, None, &answered);
            }
            Intent::Doctor => self.examine(permit, request),
            Intent::Help => {
                let config = &self.config;
                let projects = config.projects.keys().map(ToString::to_string);
                let projects: Vec<_> = projects.collect();
                let has_roots = self.projects.has_roots();
                let text = reply::help(&config.command_prefix, &projects, has_roots);
                self.answer(None, &request, Ok(&text), &answered);
            }
        }
    }

    /// Reading all processes of the host takes some milliseconds, which others need not wait for.
    fn show_status(&mut self, reply_to: ReplyTo, mut elsewhere: Vec<OtherHost>) {
        let (matrix, signals) = (self.matrix.clone(), self.signals.clone());
        let statuses = self.remote_control.status();
        let host = hosts::own_name(&self.config);
        let prefix = self.config.command_prefix.clone();
        self.spawn_quiet(async move {
            let usage = match timeout(USAGE_TIMEOUT, spawn_blocking(remote_control::usage)).await {
                Ok(Ok(usage)) => usage.map_err(|error| Chain(&error).to_string()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let usage = usage.unwrap_or_else(|error| {
                error!(error, "usage of the sessions not known");
                Usages::new()
            });
            let now = SystemTime::now();
            let overview = |elsewhere: &[OtherHost]| match elsewhere {
                [] => reply::status(&statuses, &usage, now),
                _ => reply::status_of_hosts(&host, &statuses, &usage, elsewhere, &prefix, now),
            };
            let said = answer::say(&matrix, &overview(&elsewhere), Some(&reply_to)).await;
            let Some(said) = said else { return };
            let about = reply_to.event_id().as_str();
            while hosts::note_late(&signals, about, &mut elsewhere).await {
                answer::correct(&matrix, &said, &overview(&elsewhere)).await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use matrix_sdk::ruma::{
        RoomVersionId,
        events::room::{join_rules::JoinRule, member::MembershipState},
        owned_event_id, owned_user_id, user_id,
    };
    use serde_json::json;

    use super::{
        super::{Event, tests::silent_bot},
        *,
    };
    use crate::{
        command::authorize,
        matrix::{RoomFacts, Trust},
        remote_control::{Beginning, Options, Phase, ProjectName, Start},
    };

    fn permit_for(policy: &Policy) -> Permit {
        let alice = user_id!("@alice:x.y");
        let facts = RoomFacts {
            room_version: RoomVersionId::V12,
            creators: vec![alice.to_owned()],
            power_levels: None,
            join_rule: JoinRule::Invite,
            membership: MembershipState::Join,
            encrypted: true,
        };
        authorize(alice, Trust::CrossSigned, &facts, policy).unwrap()
    }

    #[tokio::test]
    async fn a_stop_that_counted_is_recorded_although_the_bot_ends() {
        let folder = tempfile::TempDir::new().unwrap();
        let (mut bot, _) = silent_bot(folder.path());
        let website: ProjectName = "website".parse().unwrap();
        let request = Request {
            requester: "@alice:x.y".to_owned(),
            reference: ReplyTarget::Nobody.to_text(),
        };
        drop(
            bot.remote_control
                .start(&website, Beginning::Fresh, request),
        );
        let asked = Instant::now();
        let permit = permit_for(&bot.projects.policy(&website));
        bot.spawn(async move {
            let message = Message::new(
                owned_event_id!("$stop"),
                owned_user_id!("@alice:x.y"),
                "!rc stop",
            );
            let prepared = Prepared {
                asked,
                proving: None,
                found: None,
            };
            let decision = Decision::Do(permit, Intent::Stop(website), prepared);
            Event::Judged(message, decision)
        });
        bot.shut_down().await;
        let (bot, _) = silent_bot(folder.path());
        let session = bot.session_of(&"website".parse().unwrap());
        assert_eq!(session.map(|session| session.phase), Some(Phase::Stopping));
    }

    #[tokio::test]
    async fn a_start_for_whose_session_it_is_too_late_needs_the_level_of_its_own_options() {
        let folder = tempfile::TempDir::new().unwrap();
        let (mut bot, _) = silent_bot(folder.path());
        let website: ProjectName = "website".parse().unwrap();
        let start = |mode: &str| Start {
            beginning: Beginning::Fresh,
            options: Options {
                mode: Some(mode.to_owned()),
                ..Options::default()
            },
        };
        // Of the session that was there when the command was judged.
        let policy = Policy::of_session(&bot.config, bot.projects.get(&website), &start("plan"));
        let permit = permit_for(&policy);
        let mut carry_out = |mode| {
            let message = json!({ "event_id": "$asked", "thread": null });
            let intent = Intent::Start {
                project: website.clone(),
                asked: start(mode),
                complete: start(mode),
            };
            let prepared = Prepared {
                asked: Instant::now(),
                proving: None,
                found: None,
            };
            let reply_to = serde_json::from_value(message).unwrap();
            bot.carry_out(reply_to, &permit, intent, prepared);
            bot.session_of(&website).is_some()
        };
        assert!(!carry_out("bypassPermissions"));
        assert!(carry_out("plan"));
    }
}
