//! What the sessions want done and said.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use matrix_sdk::ruma::OwnedUserId;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::{
    Bot,
    audit::Conclusion,
    deliver::{self, Trigger},
    hosts,
    reply_target::ReplyTarget,
};
use crate::{
    command::reply::{self, End, Opens, Reply},
    config::Config,
    link::Link,
    matrix::Sound,
    remote_control::{
        self, Delivery, DeliveryId, Ending, Notice, Notices, Outcome, Output, ProjectName,
        Redaction, Request,
    },
};

impl Bot {
    pub(super) fn handle(&mut self, notices: Notices) {
        self.handle_all(notices, Trigger::Later);
    }

    /// As [`Bot::handle`], for what an earlier run has left.
    pub(super) fn handle_restored(&mut self, notices: Notices) {
        self.handle_all(notices, Trigger::AfterRestart);
    }

    /// As [`Bot::handle`], right after the requester was judged by what the homeserver said when it was asked at this moment.
    pub(super) fn handle_judged(&mut self, notices: Notices, asked: Instant) {
        self.handle_all(notices, Trigger::Judged(asked));
    }

    fn handle_all(&mut self, notices: Notices, occasion: Trigger) {
        for (project, notice) in notices {
            match notice {
                Notice::Deliver {
                    session,
                    number,
                    request,
                    link,
                } => {
                    let id = DeliveryId {
                        project,
                        session,
                        number,
                    };
                    self.deliver(id, request, link, occasion);
                }
                Notice::Redact(redaction) => self.redact(&project, redaction),
                Notice::Over {
                    outcome,
                    last_output,
                } => {
                    self.tell_the_end(&project, &outcome, last_output.as_ref());
                }
                Notice::RecordLost { is_running } => {
                    let prefix = &self.config.command_prefix;
                    self.announce(&reply::record_lost(prefix, &project, is_running));
                }
                Notice::Restarting { ending, rest } => {
                    self.announce(&reply::restarting(&project, &ending, rest));
                }
                Notice::EndsSoon { holders, left } => {
                    let text = reply::ends_soon(&self.config.command_prefix, &project, left);
                    for user in holders {
                        self.tell(&user, &text, Sound::Rings);
                    }
                }
                Notice::Extended { request, left } => {
                    let end = left.map(|left| End::after(SystemTime::now(), left));
                    let text = reply::extended(&project, end);
                    self.conclude(&project, &request, &text, "extended");
                }
                Notice::NotEnded { requests, reason } => {
                    let text = reply::not_ended(&project, &reason);
                    if requests.is_empty() {
                        self.announce(&text);
                    }
                    for request in &requests {
                        let conclusion = Conclusion::because("not ended", reason.clone());
                        self.answer_failed(&project, request, &text, &conclusion);
                    }
                }
                Notice::NoSession(request) => {
                    let text = reply::no_session(&self.config.command_prefix, &project);
                    self.conclude(&project, &request, &text, "no session");
                }
                Notice::RefusedWhileStopping(request) => {
                    let text = reply::stopping(&project);
                    self.conclude(&project, &request, &text, "refused while stopping");
                }
                Notice::TooManySessions {
                    requests,
                    limit,
                    active,
                } => {
                    let prefix = &self.config.command_prefix;
                    let text = reply::too_many_sessions(prefix, &project, limit, &active);
                    self.refuse_all(&project, &requests, &text);
                }
                Notice::NotRecorded { request, reason } => {
                    let text = reply::not_recorded(&project, &reason);
                    let conclusion = Conclusion::because("not recorded", reason);
                    self.answer(&project, &request, &text, &conclusion);
                }
            }
        }
    }

    fn conclude(
        &mut self,
        project: &ProjectName,
        request: &Request,
        text: &Reply,
        what: &'static str,
    ) {
        self.answer(project, request, text, &Conclusion::new(what));
    }

    fn refuse_all(&mut self, project: &ProjectName, requests: &[Request], text: &Reply) {
        if requests.iter().all(nobody_asked) {
            self.announce(text);
        }
        for request in requests {
            self.conclude(project, request, text, "too many sessions");
        }
    }

    fn deliver(&mut self, id: DeliveryId, request: Request, link: Link, occasion: Trigger) {
        let called_off = CancellationToken::new();
        self.deliveries.insert(id.clone(), called_off.clone());
        let (config, opens) = (Arc::clone(&self.config), self.opens(&id.project));
        let policy = self.queue.policy(Some(&id.project));
        let to_homeserver = self.line.clone();
        self.spawn(async move {
            let opens = with_account(&config, opens).await;
            let delivery = deliver::Delivery {
                id,
                request,
                link,
                words: reply::around_link(&config.command_prefix, &opens),
                policy,
                occasion,
            };
            deliver::deliver(to_homeserver, delivery, called_off).await
        });
    }

    /// What the link of this project opens, but for the account, which a file tells.
    fn opens(&self, project: &ProjectName) -> Opens {
        let configured = self.config.projects.get(project);
        let statuses = self.remote_control.status();
        let left = statuses
            .into_iter()
            .find(|status| status.project == *project)
            .and_then(|status| status.session?.time_left);
        Opens {
            project: project.clone(),
            host: hosts::own_name(&self.config).to_string(),
            directory: configured.map(|configured| configured.project.directory.clone()),
            account: None,
            until: left.map(|left| End::after(SystemTime::now(), left)),
        }
    }

    /// A link that is still under way, or its picture, is called off first; how that went decides what there is to redact.
    pub(super) fn redact(&mut self, project: &ProjectName, redaction: Redaction) {
        let id = DeliveryId {
            project: project.clone(),
            session: redaction.session.clone(),
            number: redaction.delivery.number,
        };
        match self.deliveries.get(&id) {
            Some(called_off) => called_off.cancel(),
            None => self.spawn(deliver::redact(self.line.clone(), id, redaction)),
        }
    }

    fn tell_the_end(
        &mut self,
        project: &ProjectName,
        outcome: &Outcome,
        last_output: Option<&Output>,
    ) {
        let Outcome {
            ending,
            report,
            stop_requests,
            deliveries,
            had_link,
            restarts,
            ..
        } = outcome;
        for request in stop_requests {
            let text = reply::stopped(project, ending, report.as_ref());
            self.answer(
                project,
                request,
                &text,
                &Conclusion::because("session stopped", format!("{ending:?}")),
            );
        }
        for delivery in deliveries
            .iter()
            .filter(|delivery| delivery.receipt.is_none())
        {
            let answer = if *had_link {
                reply::ended_before_delivery(project)
            } else {
                reply::not_started(&self.config.command_prefix, project, ending)
            };
            for request in delivery.requests() {
                self.answer(
                    project,
                    request,
                    &answer,
                    &Conclusion::because("no link", format!("{ending:?}")),
                );
            }
        }
        let asked_for = match ending {
            Ending::Stopped => true,
            Ending::Expired
            | Ending::NotSpawned(_)
            | Ending::ExitedBeforeLink { .. }
            | Ending::NoLink { .. }
            | Ending::HostRestarted
            | Ending::Exited { .. } => false,
        };
        let started_by_us = |delivery: &Delivery| delivery.requests().all(nobody_asked);
        if !had_link && !deliveries.is_empty() && deliveries.iter().all(started_by_us) {
            let text = reply::not_started(&self.config.command_prefix, project, ending);
            self.announce(&text);
        }
        if *had_link && !asked_for && stop_requests.is_empty() {
            self.announce(&reply::ended(project, ending, *restarts));
        }
        let sound = if asked_for {
            Sound::Silent
        } else {
            Sound::Rings
        };
        let last_output = last_output.filter(|_| !asked_for);
        self.tell_requesters(project, outcome, last_output, sound);
    }

    /// Those who have the link hear that it is void; all who asked for it see what the process said last, if that may
    /// tell why it ended.
    fn tell_requesters(
        &mut self,
        project: &ProjectName,
        outcome: &Outcome,
        last_output: Option<&Output>,
        sound: Sound,
    ) {
        let mut requesters: Vec<_> = outcome
            .deliveries
            .iter()
            .map(|delivery| {
                (
                    delivery.request.requester.as_str(),
                    delivery.receipt.is_some(),
                )
            })
            .collect();
        // Of several deliveries to one requester, one that arrived counts.
        requesters.sort_unstable_by_key(|(user, arrived)| (*user, !arrived));
        requesters.dedup_by_key(|(user, _)| *user);
        for (user, arrived) in requesters {
            if arrived {
                self.tell(user, &reply::link_is_void(project), sound);
            }
            let output = last_output.filter(|output| !output.is_empty());
            if let (Some(output), Ok(user)) = (output, OwnedUserId::try_from(user)) {
                let text = reply::last_output(project, output);
                let (line, policy) = (self.line.clone(), self.queue.policy(Some(project)));
                self.spawn_quiet(deliver::show_last_output(line, user, text, policy));
            }
        }
    }
}

async fn with_account(config: &Config, opens: Opens) -> Opens {
    let project = config.projects.get(&opens.project);
    let Some(project) = project.map(|configured| configured.project.clone()) else {
        return opens;
    };
    let account = spawn_blocking(move || remote_control::account(&project)).await;
    Opens {
        account: account.ok().flatten(),
        ..opens
    }
}

/// Whether it is for a session that starts with the bot: then there is no message to answer, and yet somebody may miss it.
fn nobody_asked(request: &Request) -> bool {
    ReplyTarget::from_text(&request.reference) == ReplyTarget::Nobody
}
