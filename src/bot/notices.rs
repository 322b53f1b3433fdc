//! Acts on the notices of sessions.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use matrix_sdk::ruma::OwnedUserId;

use super::{
    Bot, answer::ReplyTarget, audit::Conclusion, deliver::Trigger, hosts, judge::Proving,
    logs::Follow,
};
use crate::{
    command::reply::{self, End, NoLongerFollowed, Reply},
    config::Notification,
    matrix::Sound,
    remote_control::{
        Delivery, Ending, Notice, Notices, Options, Outcome, Output, Place, ProjectName, Quote,
        Request,
    },
};

impl Bot {
    pub(super) fn handle(&mut self, notices: Notices) {
        self.handle_all(notices, Trigger::Session, None);
    }

    /// The same, with the trigger of the deliveries, and the proof of the first one's direct message.
    pub(super) fn handle_all(
        &mut self,
        notices: Notices,
        trigger: Trigger,
        mut proving: Option<Proving>,
    ) {
        for (project, notice) in notices {
            match notice {
                Notice::Deliver { id, request, link } => {
                    self.deliver(id, request, link, (trigger, proving.take()));
                }
                Notice::Redact(redaction) => self.redact(&project, redaction),
                Notice::Over {
                    outcome,
                    last_output,
                } => {
                    let is_its = |follow: &Follow| follow.is_of(&project);
                    self.end_follows(is_its, NoLongerFollowed::NoSession);
                    self.report_end(&project, &outcome, last_output.as_ref());
                }
                Notice::RecordLost { is_running } => {
                    let prefix = &self.config.command_prefix;
                    self.announce(&reply::record_lost(prefix, &project, is_running));
                }
                Notice::Restarting {
                    ending,
                    rest,
                    had_link,
                    requests,
                } => {
                    let (prefix, place) = (&self.config.command_prefix, self.place(&project));
                    let text = if had_link {
                        reply::restarting(prefix, &project, &ending, rest, &place)
                    } else {
                        reply::trying_again(prefix, &project, &ending, rest, &place)
                    };
                    self.report_progress(&text, &requests);
                    if had_link && ending.came_after_link() {
                        self.notify_recipients(&project, notification_of(&ending), &text);
                    }
                }
                Notice::CutOff { lasts, restart } => {
                    let prefix = &self.config.command_prefix;
                    let text = reply::cut_off(prefix, &project, lasts, restart);
                    self.announce(&text);
                    self.notify_recipients(&project, Some(Notification::CutOff), &text);
                }
                Notice::Reconnected { after } => {
                    let text = reply::reconnected(&project, after);
                    self.announce(&text);
                    self.notify_recipients(&project, None, &text);
                }
                Notice::Complained {
                    cause,
                    quote,
                    in_room,
                    requesters,
                } => {
                    if in_room {
                        let (prefix, place) = (&self.config.command_prefix, self.place(&project));
                        self.announce(&reply::complained(prefix, &project, cause, &place));
                    }
                    self.show_quote(&project, &quote, requesters);
                }
                Notice::EndsSoon { holders, left } => {
                    let text = reply::ends_soon(&self.config.command_prefix, &project, left);
                    let sound = self.sound_of(&project, Some(Notification::Ended));
                    for user in holders {
                        self.notify(&user, &text, sound);
                    }
                }
                Notice::Extended {
                    request,
                    holders,
                    left,
                } => {
                    self.report_new_end(&project, &request, &holders, left);
                }
                Notice::NotEnded { requests, reason } => {
                    self.report_not_ended(&project, &requests, &reason);
                }
                Notice::ShuttingDown(requests) => {
                    self.report_progress(&reply::shutting_down(&project), &requests);
                }
                Notice::NoSession(request) => self.answer_no_session(&project, &request),
                Notice::OtherOptions { request, options } => {
                    self.refuse_other_options(&project, &request, &options);
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
                    self.refuse_too_many(&project, &requests, limit, &active);
                }
                Notice::NotRecorded { request, reason } => {
                    let text = reply::not_recorded(&project, &reason);
                    let conclusion = Conclusion::because("not recorded", reason);
                    self.answer(Some(&project), &request, Ok(&text), &conclusion);
                }
            }
        }
    }

    fn refuse_other_options(
        &mut self,
        project: &ProjectName,
        request: &Request,
        options: &Options,
    ) {
        let text = reply::other_options(&self.config.command_prefix, project, options);
        self.conclude(project, request, &text, "runs with other options");
    }

    fn show_quote(&mut self, project: &ProjectName, quote: &Quote, requesters: Vec<String>) {
        let users = requesters.into_iter().map(OwnedUserId::try_from);
        for user in users.filter_map(Result::ok) {
            self.show_unasked(project, user, reply::quote(project, quote));
        }
    }

    /// Where to act on a project.
    fn place(&self, project: &ProjectName) -> Place {
        let configured = self.projects.get(project);
        Place {
            host: Some(hosts::own_name(&self.config).to_string()),
            user: self.system_user.clone(),
            directory: configured.map(|configured| configured.project.directory.clone()),
        }
    }

    /// Whether it rings for those who have the link of the project's session. `None`: it never does.
    pub(super) fn sound_of(
        &self,
        project: &ProjectName,
        notification: Option<Notification>,
    ) -> Sound {
        let project = self.projects.get(project);
        let rings = |what| project.is_none_or(|project| project.notify.contains(&what));
        if notification.is_some_and(rings) {
            Sound::Rings
        } else {
            Sound::Silent
        }
    }

    fn notify_recipients(
        &mut self,
        project: &ProjectName,
        notification: Option<Notification>,
        text: &Reply,
    ) {
        let sound = self.sound_of(project, notification);
        for user in self.remote_control.recipients(project) {
            self.notify(&user, text, sound);
        }
    }

    /// The new end is also reported to those who have the link.
    fn report_new_end(
        &mut self,
        project: &ProjectName,
        request: &Request,
        holders: &[String],
        left: Option<Duration>,
    ) {
        let end = left.map(|left| End::after(SystemTime::now(), left));
        let text = reply::extended(project, end);
        for user in holders.iter().filter(|_| end.is_some()) {
            self.notify(user, &text, Sound::Silent);
        }
        self.conclude(project, request, &text, "extended");
    }

    fn answer_no_session(&mut self, project: &ProjectName, request: &Request) {
        let prefix = match ReplyTarget::of(request) {
            ReplyTarget::Operator(_) => None,
            ReplyTarget::Message(_) | ReplyTarget::Nobody => {
                Some(self.config.command_prefix.as_str())
            }
        };
        let text = reply::no_session(prefix, project);
        self.conclude(project, request, &text, "no session");
    }

    fn report_not_ended(&mut self, project: &ProjectName, requests: &[Request], reason: &str) {
        let text = reply::not_ended(project, reason);
        if requests.is_empty() {
            self.announce(&text);
        }
        for request in requests {
            let conclusion = Conclusion::because("not ended", reason);
            self.answer(Some(project), request, Err(&text), &conclusion);
        }
    }

    fn refuse_too_many(
        &mut self,
        project: &ProjectName,
        requests: &[Request],
        limit: usize,
        active: &[ProjectName],
    ) {
        let prefix = &self.config.command_prefix;
        let text = reply::too_many_sessions(prefix, project, limit, active);
        if requests.iter().all(nobody_asked) {
            self.announce(&text);
        }
        for request in requests {
            self.conclude(project, request, &text, "too many sessions");
        }
    }

    fn report_end(
        &mut self,
        project: &ProjectName,
        outcome: &Outcome,
        last_output: Option<&Output>,
    ) {
        let (prefix, place) = (
            &Arc::clone(&self.config).command_prefix,
            self.place(project),
        );
        let Outcome {
            ending,
            report,
            stop_requests,
            deliveries,
            had_link,
            ..
        } = outcome;
        for request in stop_requests {
            let text = reply::stopped(project, ending, report.as_ref());
            let conclusion = Conclusion::because("session stopped", format!("{ending:?}"));
            self.answer(Some(project), request, Ok(&text), &conclusion);
        }
        for delivery in deliveries
            .iter()
            .filter(|delivery| delivery.receipt.is_none())
        {
            let answer = if *had_link {
                reply::ended_before_delivery(project)
            } else {
                reply::not_started(prefix, project, ending, &place)
            };
            for request in delivery.requests() {
                let conclusion = Conclusion::because("no link", format!("{ending:?}"));
                self.answer(Some(project), request, Ok(&answer), &conclusion);
            }
        }
        let notification = notification_of(ending);
        let asked_for = notification.is_none();
        let started_by_us = |delivery: &Delivery| delivery.requests().all(nobody_asked);
        if !had_link && !deliveries.is_empty() && deliveries.iter().all(started_by_us) {
            let text = reply::not_started(prefix, project, ending, &place);
            self.announce(&text);
        }
        if *had_link && !asked_for && stop_requests.is_empty() {
            self.announce(&reply::ended(prefix, project, ending, &place));
        }
        let sound = self.sound_of(project, notification);
        let is_in_order = asked_for || *ending == Ending::Completed;
        let last_output = last_output.filter(|_| !is_in_order);
        self.notify_requesters(project, outcome, last_output, sound);
    }

    /// Notifies those who have the link that it is void, and sends all who asked for it the last output, if that may explain
    /// the end.
    fn notify_requesters(
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
            // The user who stopped it knows already.
            let has_asked = outcome
                .stop_requests
                .iter()
                .any(|request| request.requester == user);
            if arrived && !has_asked {
                let how = notification_of(&outcome.ending).map(|_| {
                    let (prefix, place) = (&self.config.command_prefix, self.place(project));
                    reply::ended(prefix, project, &outcome.ending, &place)
                });
                let now = SystemTime::now();
                let void = reply::link_is_void(project, how, outcome.since, now);
                self.notify(user, &void, sound);
            }
            let output = last_output.filter(|output| !output.is_empty());
            if let (Some(output), Ok(user)) = (output, OwnedUserId::try_from(user)) {
                let text = reply::last_output(project, output, SystemTime::now());
                self.show_unasked(project, user, text);
            }
        }
    }
}

/// How those who have the link are notified of an ending. `None`: somebody asked for it.
fn notification_of(ending: &Ending) -> Option<Notification> {
    match ending {
        Ending::Stopped => None,
        Ending::HostRestarted => Some(Notification::Rebooted),
        Ending::Expired
        | Ending::Completed
        | Ending::CutOff { .. }
        | Ending::NotSpawned(_)
        | Ending::ExitedBeforeLink { .. }
        | Ending::NoLink { .. }
        | Ending::Exited { .. } => Some(Notification::Ended),
    }
}

/// Whether it is an autostart: then there is no message to answer, and yet somebody may miss it.
fn nobody_asked(request: &Request) -> bool {
    ReplyTarget::of(request) == ReplyTarget::Nobody
}
