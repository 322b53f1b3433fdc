//! Acts on the notices of sessions.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use super::{
    Bot,
    answer::{ReplyTarget, nobody_asked},
    audit::Conclusion,
    deliver::Trigger,
    hosts,
    judge::Proving,
};
use crate::{
    command::reply::{self, About, NoLongerFollowed, Reply},
    config::Notification,
    matrix::Sound,
    remote_control::{Delivery, Ending, Notice, Notices, Outcome, Output, Place, ProjectName},
};

impl Bot {
    /// Acts on the notices of a change. Every change of a session comes here, also one without notices.
    pub(super) fn handle(&mut self, notices: Notices) {
        self.handle_all(notices, Trigger::Session, None);
    }

    /// The same, with the trigger of the deliveries, and the proof of the first one's direct message.
    #[expect(clippy::too_many_lines, reason = "a few lines for each notice")]
    pub(super) fn handle_all(
        &mut self,
        notices: Notices,
        trigger: Trigger,
        mut proving: Option<Proving>,
    ) {
        self.announce_host();
        let config = Arc::clone(&self.config);
        for (project, notice) in notices {
            let about = About {
                prefix: &config.command_prefix,
                project: &project,
                place: self.place(&project),
            };
            match notice {
                Notice::Deliver { id, request, link } => {
                    self.deliver(id, request, link, (trigger, proving.take()));
                }
                Notice::Redact(redaction) => self.redact(&project, redaction),
                Notice::Over {
                    outcome,
                    last_output,
                } => {
                    self.end_follows(Some(&project), NoLongerFollowed::NoSession);
                    self.report_end(&about, &outcome, last_output.as_ref());
                }
                Notice::RecordLost { is_running } => self.announce(&about.record_lost(is_running)),
                Notice::Restarting {
                    ending,
                    delay,
                    had_link,
                    requests,
                } => {
                    let text = about.restarting(&ending, delay, had_link);
                    self.report_progress(&text, &requests);
                    if had_link && ending.came_after_link() {
                        self.notify_recipients(&project, notification_of(&ending), &text);
                    }
                }
                Notice::CutOff { lasts, restart } => {
                    let text = about.cut_off(lasts, restart);
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
                } => {
                    if in_room {
                        self.announce(&about.complained(cause));
                    }
                    for user in self.remote_control.recipients(&project) {
                        self.show_unasked(&project, &user, reply::quote(&project, &quote));
                    }
                }
                Notice::EndsSoon { holders, left } => {
                    let text = about.ends_soon(left);
                    let sound = self.sound_of(&project, Some(Notification::Ended));
                    self.notify_each(holders, &text, sound);
                }
                Notice::Extended {
                    request,
                    holders,
                    left,
                } => {
                    let end = left.map(|left| reply::end_after(SystemTime::now(), left));
                    let text = reply::extended(&project, end.as_deref());
                    if end.is_some() {
                        self.notify_each(holders, &text, Sound::Silent);
                    }
                    self.conclude(&project, &request, &text, "extended");
                }
                Notice::NotEnded { requests, reason } => {
                    let text = reply::not_ended(&project, &reason);
                    if requests.iter().all(nobody_asked) {
                        self.announce(&text);
                    }
                    let conclusion = Conclusion::because("not ended", reason);
                    for request in requests {
                        self.answer(Some(&project), &request, Err(&text), &conclusion);
                    }
                }
                Notice::ShuttingDown(requests) => {
                    self.report_progress(&reply::shutting_down(&project), &requests);
                }
                Notice::NoSession(request) => {
                    let is_operator = matches!(ReplyTarget::of(&request), ReplyTarget::Operator(_));
                    let text = reply::no_session((!is_operator).then_some(about.prefix), &project);
                    self.conclude(&project, &request, &text, "no session");
                }
                Notice::OtherOptions { request, options } => {
                    let text = about.other_options(&options);
                    self.conclude(&project, &request, &text, "runs with other options");
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
                    let text = about.too_many_sessions(limit, &active);
                    if requests.iter().all(nobody_asked) {
                        self.announce(&text);
                    }
                    for request in requests {
                        self.conclude(&project, &request, &text, "too many sessions");
                    }
                }
                Notice::NotRecorded { request, reason } => {
                    let text = reply::not_recorded(&project, &reason);
                    let conclusion = Conclusion::because("not recorded", reason);
                    self.answer(Some(&project), &request, Ok(&text), &conclusion);
                }
            }
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
        self.notify_each(self.remote_control.recipients(project), text, sound);
    }

    fn notify_each(&mut self, users: impl IntoIterator<Item = String>, text: &Reply, sound: Sound) {
        for user in users {
            self.notify(&user, text, sound);
        }
    }

    fn report_end(&mut self, about: &About<'_>, outcome: &Outcome, last_output: Option<&Output>) {
        let (project, ending, had_link) = (about.project, &outcome.ending, outcome.had_link);
        for request in &outcome.stop_requests {
            let text = reply::stopped(project, ending, outcome.report.as_ref());
            let conclusion = Conclusion::because("session stopped", format!("{ending:?}"));
            self.answer(Some(project), request, Ok(&text), &conclusion);
        }
        let deliveries = &outcome.deliveries;
        for delivery in deliveries.iter().filter(|it| it.receipt.is_none()) {
            let answer = if had_link {
                reply::ended_before_delivery(project)
            } else {
                about.not_started(ending)
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
            self.announce(&about.not_started(ending));
        }
        if had_link && !asked_for && outcome.stop_requests.is_empty() {
            self.announce(&about.ended(ending));
        }
        let is_in_order = asked_for || *ending == Ending::Completed;
        let last_output = last_output.filter(|output| !is_in_order && !output.is_empty());
        let sound = self.sound_of(project, notification);
        self.notify_requesters(about, outcome, last_output, sound);
    }

    /// Notifies those who have the link that it is void, and sends all who asked for it the output that may explain the end.
    fn notify_requesters(
        &mut self,
        about: &About<'_>,
        outcome: &Outcome,
        last_output: Option<&Output>,
        sound: Sound,
    ) {
        let (project, ending, now) = (about.project, &outcome.ending, SystemTime::now());
        // Of several deliveries to one requester, one that arrived counts.
        let mut requesters = BTreeMap::<&str, bool>::new();
        for delivery in &outcome.deliveries {
            let arrived = requesters.entry(&delivery.request.requester).or_default();
            *arrived |= delivery.receipt.is_some();
        }
        for (user, arrived) in requesters {
            // The user who stopped it knows already.
            let mut stop_requests = outcome.stop_requests.iter();
            let has_asked = stop_requests.any(|request| request.requester == user);
            if arrived && !has_asked {
                let how = notification_of(ending).map(|_| about.ended(ending));
                let void = reply::link_is_void(project, how, outcome.since, now);
                self.notify(user, &void, sound);
            }
            if let Some(output) = last_output {
                self.show_unasked(project, user, reply::last_output(project, output, now));
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::tests::silent_bot, *};
    use crate::remote_control::{Request, SessionId};

    #[tokio::test]
    async fn an_end_is_announced_where_nobody_asked_for_it_and_answered_where_somebody_did() {
        let by_message = |user: &str| {
            let message = json!({ "event_id": "$asked", "thread": null });
            Request {
                requester: format!("@{user}:x.y"),
                reference: ReplyTarget::Message(serde_json::from_value(message).unwrap()).to_text(),
            }
        };
        let by_the_bot = Request {
            reference: ReplyTarget::Nobody.to_text(),
            ..by_message("alice")
        };
        let delivery = |request: &Request, receipt: Option<&str>| Delivery {
            number: 0,
            request: request.clone(),
            also: Vec::new(),
            receipt: receipt.map(str::to_owned),
        };
        let (alice, bob) = (by_message("alice"), by_message("bob"));
        let no_link = Ending::NoLink {
            waited: std::time::Duration::ZERO,
            cause: None,
        };
        let none = Vec::new;
        for (what, ending, stop_requests, deliveries, had_link, messages) in [
            (
                "an autostart fails: to the room",
                no_link.clone(),
                none(),
                vec![delivery(&by_the_bot, None)],
                false,
                1,
            ),
            (
                "also one for which somebody waits: only to them",
                no_link,
                none(),
                vec![delivery(&by_the_bot, None), delivery(&alice, None)],
                false,
                1,
            ),
            (
                "it ends as nobody wanted: to the room, and to who has the link",
                Ending::Expired,
                none(),
                vec![delivery(&alice, Some("receipt"))],
                true,
                2,
            ),
            (
                "the same while its stop is requested: to who did that, and to who has the link",
                Ending::Expired,
                vec![bob.clone()],
                vec![delivery(&alice, Some("receipt"))],
                true,
                2,
            ),
            (
                "it is stopped by who has the link: only to them",
                Ending::Stopped,
                vec![alice.clone()],
                vec![delivery(&alice, Some("receipt"))],
                true,
                1,
            ),
            (
                "it is stopped by the bot, which says why elsewhere: to who has the link",
                Ending::Stopped,
                none(),
                vec![delivery(&alice, Some("receipt"))],
                true,
                1,
            ),
        ] {
            let folder = tempfile::TempDir::new().unwrap();
            let (mut bot, _) = silent_bot(folder.path());
            let outcome = Outcome {
                session: SessionId::random(),
                since: SystemTime::now(),
                ending,
                report: None,
                stop_requests,
                deliveries,
                had_link,
            };
            let over = Notice::Over {
                outcome,
                last_output: None,
            };
            bot.handle(vec![("website".parse().unwrap(), over)]);
            assert_eq!(bot.tasks.len(), messages, "{what}");
        }
    }
}
