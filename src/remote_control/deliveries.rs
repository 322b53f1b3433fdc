//! What becomes of links on their way, as told by whoever brings them.

use super::{
    Delivery, DeliveryId, Event, Notice, ProjectName, Receipt, RemoteControl, Request, Withdrawal,
};

impl RemoteControl {
    /// All requests that a delivery answers; of a session that is over, `first` alone.
    #[must_use]
    pub fn requests(&self, id: &DeliveryId, first: &Request) -> Vec<Request> {
        let session = self
            .slots
            .get(&id.project)
            .and_then(|slot| slot.session.as_ref());
        let requests = session
            .filter(|session| session.id() == &id.session)
            .map(|session| session.requests(id.number));
        requests
            .filter(|requests| !requests.is_empty())
            .unwrap_or_else(|| vec![first.clone()])
    }

    /// Whether a delivery is still wanted: its session goes on, and shows that link.
    #[must_use]
    pub fn wants(&self, id: &DeliveryId) -> bool {
        let slot = self.slots.get(&id.project);
        let session = slot.and_then(|slot| slot.session.as_ref());
        session.is_some_and(|session| session.id() == &id.session && session.wants(id.number))
    }

    /// The requester has the link, and the receipt tells where. It may be said again with a receipt that tells more.
    pub fn delivered(&mut self, id: DeliveryId, request: Request, receipt: Receipt) -> Vec<Notice> {
        if self.wants(&id) {
            let number = id.number;
            return self.apply(&id.project, Event::Delivered { number, receipt });
        }
        // The link became void while it was under way: it is redacted at once.
        let withdrawal = withdrawal(&id, request, Some(receipt));
        self.take_back(id.project, withdrawal)
    }

    /// Nobody brings this link any more. If that was `tried`, it may have arrived all the same, and is redacted at once; if
    /// not, there is nothing to take back.
    pub fn called_off(&mut self, id: DeliveryId, request: Request, tried: bool) -> Vec<Notice> {
        let withdrawal = withdrawal(&id, request, None);
        if tried {
            return self.take_back(id.project, withdrawal);
        }
        self.withdrawn(&id.project, &withdrawal);
        Vec::new()
    }

    /// The requester cannot get the link. The session stays for a next try.
    pub fn undeliverable(&mut self, id: &DeliveryId) -> Vec<Notice> {
        let slot = self.slots.entry(id.project.clone()).or_default();
        if slot.has_session(&id.session) {
            return self.apply(&id.project, Event::Undeliverable { number: id.number });
        }
        Vec::new()
    }

    /// The link is redacted.
    pub fn withdrawn(&mut self, project: &ProjectName, withdrawal: &Withdrawal) {
        let slot = self.slots.entry(project.clone()).or_default();
        slot.withdrawals
            .retain(|known| !known.is_same_delivery(withdrawal));
        self.save_or_retry(project);
    }

    fn take_back(&mut self, project: ProjectName, withdrawal: Withdrawal) -> Vec<Notice> {
        let slot = self.slots.entry(project.clone()).or_default();
        slot.note_withdrawal(withdrawal.clone());
        self.save_or_retry(&project);
        vec![Notice::Withdraw {
            project,
            withdrawal,
        }]
    }
}

fn withdrawal(id: &DeliveryId, request: Request, receipt: Option<Receipt>) -> Withdrawal {
    Withdrawal {
        session: id.session.clone(),
        delivery: Delivery {
            number: id.number,
            request,
            also: Vec::new(),
            receipt,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SessionId, Settings};
    use super::*;

    #[tokio::test]
    async fn a_link_that_is_called_off_is_taken_back_only_if_it_may_have_arrived() {
        let folder = tempfile::TempDir::new().unwrap();
        let settings = || Settings {
            folder: folder.path().join("sessions"),
            host: "host".to_owned(),
            projects: Vec::new(),
            max_sessions: None,
        };
        let id = DeliveryId {
            project: "website".parse().unwrap(),
            session: SessionId::random(),
            number: 1,
        };
        let request = Request {
            requester: "alice".to_owned(),
            reference: String::new(),
        };
        let (mut sessions, _happened, _) = RemoteControl::restore(settings()).unwrap();
        let notices = sessions.called_off(id.clone(), request.clone(), true);
        assert!(
            matches!(&notices[..], [Notice::Withdraw { withdrawal, .. }] if withdrawal.session == id.session),
            "{notices:?}"
        );
        let (mut restored, _happened, notices) = RemoteControl::restore(settings()).unwrap();
        assert!(matches!(notices[..], [Notice::Withdraw { .. }]), "on disk");
        assert!(restored.called_off(id, request, false).is_empty());
        let (_, _, notices) = RemoteControl::restore(settings()).unwrap();
        assert!(notices.is_empty(), "{notices:?}");
    }
}
