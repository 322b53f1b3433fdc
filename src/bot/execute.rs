//! What comes of a command once it is judged.

use std::{
    collections::BTreeMap,
    time::{Instant, SystemTime},
};

use tokio::task::spawn_blocking;
use tracing::error;

use super::{
    Bot, Event,
    audit::{self, Conclusion},
    deliver, hosts,
    judge::{Decision, Intent},
    rate::Excess,
    reply_target::ReplyTarget,
};
use crate::{
    command::{
        Permit,
        reply::{self, Secret},
    },
    matrix::{Announcement, Chain, Message, ReplyTo},
    remote_control::{self, OutputError, ProjectName, Request},
};

impl Bot {
    /// Somebody commands more often than they may: they are told once a minute, unless they were refused something else
    /// in that minute, and nothing else is done.
    pub(super) fn turn_away(&mut self, message: &Message, excess: Excess) {
        let prefix = &self.config.command_prefix;
        self.audit.turned_away(prefix, message, excess);
        if excess.number == 1 && self.queue.may_refuse(&message.sender) {
            let limit = self.config.limits.commands_per_minute;
            self.say(message, &reply::too_many_commands(limit));
        }
    }

    pub(super) fn execute(&mut self, message: &Message, verdict: Decision) {
        self.audit
            .judged(&self.config.command_prefix, message, &verdict);
        match verdict {
            Decision::Denied(denied) => {
                if self.queue.may_refuse(&message.sender) {
                    self.say(message, &reply::denied(&denied));
                }
            }
            Decision::Misused(misuse) => {
                self.say(
                    message,
                    &reply::misuse(&self.config.command_prefix, &misuse),
                );
            }
            Decision::CannotDeliver(project, reason) => {
                self.say(
                    message,
                    &reply::undeliverable(Secret::Link(&project), &reason),
                );
            }
            Decision::Do(permit, intent, asked) => self.carry_out(message, &permit, intent, asked),
            Decision::NotOurs | Decision::DoneBefore => {}
        }
    }

    fn carry_out(&mut self, message: &Message, permit: &Permit, intent: Intent, asked: Instant) {
        let request = || Request {
            requester: permit.requester().to_string(),
            reference: ReplyTarget::Message(message.into()).to_text(),
        };
        match intent {
            Intent::Start(project, beginning) => {
                let notices = self.remote_control.start(&project, beginning, request());
                // Whatever is delivered at once goes to whom was just judged.
                self.handle_judged(notices, asked);
            }
            Intent::Stop(project) => {
                let notices = self.remote_control.stop(&project, request());
                self.handle(notices);
            }
            Intent::Extend(project, by) => {
                let notices = self.remote_control.extend(&project, by, request());
                self.handle(notices);
            }
            Intent::Logs(project) => self.show_output(project, permit, request()),
            Intent::Status { elsewhere } => {
                self.show_status(message, elsewhere);
                audit::answered(message);
            }
            Intent::Doctor => self.examine(message, permit),
            Intent::Help => {
                self.say(message, &reply::help(&self.config.command_prefix));
                audit::answered(message);
            }
        }
    }

    /// Looking at all processes of the host takes some milliseconds, which others need not wait for.
    fn show_status(&mut self, message: &Message, elsewhere: Vec<Announcement>) {
        let (line, reply_to) = (self.line.clone(), ReplyTo::from(message));
        let statuses = self.remote_control.status();
        let host = hosts::own_name(&self.config);
        self.spawn_quiet(async move {
            let usage = match spawn_blocking(remote_control::usage).await {
                Ok(Ok(usage)) => usage,
                Ok(Err(error)) => {
                    error!(error = %Chain(&error), "usage of the sessions not known");
                    BTreeMap::new()
                }
                Err(error) => {
                    error!(%error, "usage of the sessions not known");
                    BTreeMap::new()
                }
            };
            let now = SystemTime::now();
            let text = reply::status(&statuses, &usage, now);
            let text = if elsewhere.is_empty() {
                text
            } else {
                reply::status_of_hosts(&host, text, &elsewhere, now)
            };
            deliver::say(line, text, Some(reply_to)).await;
        });
    }

    fn show_output(&mut self, project: ProjectName, permit: &Permit, request: Request) {
        match self.remote_control.output(&project) {
            Ok(output) => {
                let text = reply::last_output(&project, &output);
                let (line, policy) = (self.line.clone(), self.queue.policy(Some(&project)));
                let showing = deliver::show(line, permit.requester().to_owned(), text, policy);
                self.spawn(async move {
                    let result = showing.await;
                    Event::Shown {
                        project,
                        request,
                        result,
                    }
                });
            }
            Err(error) => {
                if !matches!(error, OutputError::None) {
                    error!(%project, error = %Chain(&error), "output not readable");
                }
                let text = reply::no_output(&project, &error);
                self.answer(
                    &project,
                    &request,
                    &text,
                    &Conclusion::because("no output", error.to_string()),
                );
            }
        }
    }
}
