//! Going on after a restart of the bot.

use super::*;

/// The deadline for the link of a session that is starting.
fn deadline(life: &Life) -> Duration {
    match life.session.state() {
        State::Starting { deadline, .. } => deadline.saturating_sub(BEGIN),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_state_goes_on_where_it_was() {
    let terms = terms(None, Restart::OnExit);
    let waiting = |terms| {
        let mut life = Life::running(terms);
        life.on(asked_by("bob"));
        life
    };
    let expected: [(Begin, Vec<Effect>); 6] = [
        (Life::begin, vec![Effect::Spawn]),
        (Life::starting, vec![Effect::Watch]),
        (Life::running, vec![Effect::Watch]),
        (waiting, vec![Effect::Watch, Effect::Deliver(1)]),
        (Life::stopping, vec![Effect::EndTree]),
        (Life::awaiting_restart, vec![]),
    ];
    for (begin, effects) in expected {
        let mut life = begin(terms);
        assert_eq!(life.restore(None, false, at(Duration::ZERO)), effects);
    }
}

#[test]
fn a_process_that_no_record_names_is_found_and_not_made_a_second_time() {
    let mut life = Life::begin(TERMS);
    let effects = life.restore(Some(process(7)), false, at(MINUTE));
    assert_eq!(effects, [Effect::Watch]);
    assert_eq!(life.session.process(), Some(&process(7)));

    let mut life = Life::begin(TERMS);
    life.on(Event::StopRequested(request("bob")));
    let effects = life.restore(Some(process(7)), false, at(MINUTE));
    assert_eq!(effects, [Effect::EndTree]);
    assert_eq!(life.session.process(), Some(&process(7)));
}

#[test]
fn the_wait_for_the_link_goes_on_with_the_time_that_is_left() {
    let seconds = Duration::from_secs;
    let mut life = Life::starting(TERMS);
    life.restore(None, false, at(seconds(20)));
    assert_eq!(deadline(&life), LINK_TIMEOUT);

    let mut life = Life::begin(TERMS);
    life.restore(Some(process(7)), false, at(seconds(20)));
    assert_eq!(deadline(&life), LINK_TIMEOUT);
}

#[test]
fn a_link_that_came_while_no_bot_ran_is_read_before_the_time_is_up() {
    let mut life = Life::starting(TERMS);
    life.restore(None, false, at(HOUR));
    assert!(deadline(&life) > HOUR);
}

#[test]
fn a_session_of_a_project_that_left_the_configuration_waits_for_no_link() {
    let gone = Terms {
        link_timeout: None,
        ..TERMS
    };
    let century = Duration::from_hours(24 * 365 * 90);
    let mut starting = Life::starting(TERMS);
    starting.terms = gone;
    starting.restore(None, false, at(HOUR));
    assert!(deadline(&starting) > century);
    let mut spawning = Life::begin(gone);
    spawning.restore(Some(process(7)), false, at(HOUR));
    assert!(deadline(&spawning) > century);
    // Once it is back, so is the deadline.
    spawning.terms = TERMS;
    spawning.restore(None, false, at(HOUR));
    assert_eq!(deadline(&spawning), HOUR + LINK_TIMEOUT);
}

#[test]
fn a_process_that_a_restart_of_the_host_has_ended_is_not_waited_for() {
    for begin in [Life::starting, Life::running] as [Begin; 2] {
        let mut life = begin(TERMS);
        let now = Moment {
            wall: UNIX_EPOCH + BEGIN + HOUR,
            uptime: MINUTE,
        };
        let effects = life.restore(None, true, now);
        assert_eq!(effects, [Effect::EndTree]);
        assert_eq!(finished(life.on(gone())).ending, Ending::HostRestarted);
    }
    // Where the process is there, the host was not.
    let effects = Life::running(TERMS).restore(Some(process(1)), true, at(HOUR));
    assert_eq!(effects, [Effect::Watch]);
}

#[test]
fn a_process_that_is_made_after_a_restart_has_the_whole_time_for_its_link() {
    for booted in [false, true] {
        let mut life = Life::begin(TERMS);
        assert_eq!(life.restore(None, booted, at(HOUR)), [Effect::Spawn]);
        life.on(Event::Spawned(process(7)));
        assert_eq!(deadline(&life), HOUR + LINK_TIMEOUT);
    }
}

#[test]
fn the_delay_of_a_restart_is_over_when_the_host_was_booted() {
    let mut life = Life::awaiting_restart(terms(None, Restart::OnExit));
    let now = Moment {
        wall: UNIX_EPOCH + BEGIN + HOUR,
        uptime: MINUTE,
    };
    life.restore(None, true, now);
    assert_eq!(life.session.next_wake(&life.terms), Some(MINUTE));
}

#[test]
fn a_session_whose_record_was_lost_waits_for_its_link_and_has_no_requesters() {
    let mut session = Session::adopted(SessionId::random(), process(7), &TERMS, at(HOUR));
    assert_eq!(session.process(), Some(&process(7)));
    let effects = session.on(Event::LinkShown(link("one")), &TERMS, at(HOUR));
    assert_eq!(effects, []);
    assert!(matches!(session.state(), State::Running { .. }));
    assert_eq!(session.requester(), None);
}

#[test]
fn a_session_comes_back_from_its_record_as_it_was() {
    let terms = terms(Some(HOUR), Restart::OnExit);
    let all: [Begin; 5] = [
        Life::begin,
        Life::starting,
        Life::running,
        Life::stopping,
        Life::awaiting_restart,
    ];
    for begin in all {
        let session = begin(terms).session;
        let record = serde_json::to_string(&session).unwrap();
        assert_eq!(serde_json::from_str::<Session>(&record).unwrap(), session);
    }
}

#[test]
fn a_record_of_the_version_before_is_read() {
    let process = r#"{"pid": 1, "start_time": 1, "boot_id": "boot"}"#;
    for state in [
        r#"{"spawning": {"since": {"secs": 1, "nanos": 0}}}"#.to_owned(),
        format!(
            r#"{{"starting": {{"process": {process}, "deadline": {{"secs": 9, "nanos": 0}}}}}}"#
        ),
        format!(
            r#"{{"running": {{"process": {process}, "link": "https://claude.ai/code/one", "since": {{"secs": 1, "nanos": 0}}}}}}"#
        ),
        format!(
            r#"{{"stopping": {{"process": {process}, "ending": {{"exited": {{"exit": {{"code": 1}}, "cause": "network"}}}},
               "stop_requests": []}}}}"#
        ),
        r#"{"resting": {"until": {"secs": 1, "nanos": 0}}}"#.to_owned(),
    ] {
        let record = format!(
            r#"{{"id": "session", "created": {{"secs_since_epoch": 1, "nanos_since_epoch": 0}}, "beginning": "fresh",
               "state": {state}, "deliveries": [], "next_delivery": 0, "had_link": true, "end": null, "restarts": 0}}"#
        );
        let session: Result<Session, _> = serde_json::from_str(&record);
        assert!(session.is_ok(), "{session:?}: {record}");
    }
}
