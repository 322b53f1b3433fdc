//! The loop without a homeserver.

use std::fs;

use super::*;
use crate::remote_control::Request;

fn settings(folder: &std::path::Path) -> remote_control::Settings {
    remote_control::Settings {
        folder: folder.join("sessions"),
        host: "host".to_owned(),
        projects: Vec::new(),
        max_sessions: None,
    }
}

/// A bot without a homeserver, and what it would receive from one.
pub(super) fn silent_bot(folder: &std::path::Path) -> (Bot, Inbound) {
    let file = folder.join("config.yaml");
    let text = format!(
        "homeserver: {{ url: http://127.0.0.1:1, server_name: x.y }}\n\
         bot: {{ access_token: token }}\n\
         admin_room: \"#admins:x.y\"\n\
         authorization: {{ power_level: 50 }}\n\
         sessions: {{ permission_modes: [plan, bypassPermissions: 100] }}\n\
         projects: {{ website: {{ directory: {} }} }}\n",
        folder.display()
    );
    fs::write(&file, text).unwrap();
    let config = Arc::new(Config::load(&file).unwrap());
    let login = Login::load(&config).unwrap();
    let (remote_control, _) = RemoteControl::restore(settings(folder), |_| None).unwrap();
    let (_, matrix, inbound) = connection::open(
        Arc::clone(&config),
        login,
        MatrixFolder::new(folder.join("matrix")),
    );
    let bot = Bot::new(Projects::new(config), remote_control, matrix);
    (bot, inbound)
}

#[tokio::test]
async fn a_task_that_panics_ends_the_bot_and_one_that_ends_well_does_not() {
    let folder = tempfile::TempDir::new().unwrap();
    let (mut bot, inbound) = silent_bot(folder.path());
    let (_orders, mut ordered) = mpsc::channel(1);
    let (go_on, gone_on) = tokio::sync::oneshot::channel::<()>();
    bot.spawn_quiet(async { go_on.send(()).unwrap() });
    bot.spawn_quiet(async {
        gone_on.await.unwrap();
        panic!("as it must");
    });
    let served = bot.serve(inbound, &mut ordered);
    let error = timeout(Duration::from_secs(30), served).await;
    assert!(matches!(error, Ok(BotError::Panicked)), "{error:?}");
}

#[tokio::test]
async fn a_panic_in_the_loop_ends_the_bot_with_an_error() {
    let result = catch_panic(async { panic!("as it must") }).await;
    assert!(matches!(result, Err(BotError::Panicked)), "{result:?}");
}

#[tokio::test]
async fn results_of_tasks_are_recorded_during_shutdown() {
    let folder = tempfile::TempDir::new().unwrap();
    let (mut bot, _) = silent_bot(folder.path());
    let id = DeliveryId {
        project: "website".parse().unwrap(),
        session: remote_control::SessionId::random(),
        number: 1,
    };
    let request = Request {
        requester: "alice".to_owned(),
        reference: String::new(),
    };
    let cancelled = bot.remote_control.cancelled(id, request, true);
    let [(project, remote_control::Notice::Redact(redaction))] = &cancelled[..] else {
        panic!("{cancelled:?}")
    };
    let (project, redaction) = (project.clone(), redaction.clone());
    bot.spawn(async move {
        tokio::task::yield_now().await;
        Event::Redacted(project, redaction)
    });
    bot.shut_down().await;
    let (_, notices) = RemoteControl::restore(settings(folder.path()), |_| None).unwrap();
    assert!(notices.is_empty(), "{notices:?}");
}

#[tokio::test]
async fn a_session_that_the_bot_ends_and_cannot_end_is_announced() {
    let folder = tempfile::TempDir::new().unwrap();
    let (mut bot, _) = silent_bot(folder.path());
    // As after a link that was overheard.
    let not_ended = remote_control::Notice::NotEnded {
        requests: vec![Request {
            requester: "the bot itself".to_owned(),
            reference: answer::ReplyTarget::Nobody.to_text(),
        }],
        reason: "process 1 is root's".to_owned(),
    };
    bot.handle(vec![("website".parse().unwrap(), not_ended)]);
    assert_eq!(bot.tasks.len(), 1, "one message to the room");
}

#[tokio::test]
async fn an_order_to_stop_fails_where_the_session_cannot_be_ended() {
    let folder = tempfile::TempDir::new().unwrap();
    let (mut bot, _) = silent_bot(folder.path());
    let (orders, mut ordered) = mpsc::channel(1);
    let listening = local::listen(folder.path().join(crate::data_dir::SOCKET), orders);
    let asking = ask_to_stop(folder.path(), "website", Duration::from_secs(30));
    let carrying_out = async {
        let (_, answer) = ordered.recv().await.unwrap();
        bot.stop_orders.insert(7, answer);
        let not_ended = remote_control::Notice::NotEnded {
            requests: vec![Request {
                requester: "the operator".to_owned(),
                reference: answer::ReplyTarget::Operator(7).to_text(),
            }],
            reason: "process 1 is root's".to_owned(),
        };
        bot.handle(vec![("website".parse().unwrap(), not_ended)]);
    };
    let asking = async { tokio::join!(asking, carrying_out).0 };
    let answer = tokio::select! {
        // The socket is there before it is asked for.
        biased;
        never = listening => match never {},
        answer = asking => answer,
    };
    assert!(
        matches!(&answer, Err(local::OperatorError::Refused(why)) if why.contains("process 1")),
        "{answer:?}"
    );
}
