//! The real bot on a real Synapse, a file per promise.
//!
//! One binary, because each further one links the whole SDK again. The homeserver is installed and started by the first test
//! that needs it; every test has its own users, bot and folders.
#![recursion_limit = "256"]
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![expect(
    clippy::print_stderr,
    reason = "the test harness shows it when a test fails"
)]

// What the other tests rely on, and its own test.
mod smoke;
mod support;

// Sessions, from the command to the end, and what people see of them.
mod failures;
mod life_span;
mod logs;
mod main_job;
mod messages;
mod notifications;
mod options;
mod project_roots;

// Who may command, what is a command, and who gets a link.
mod audit;
mod authorization;
mod delivery;
mod devices;
mod direct_message;
mod edits;
mod encrypted_commands;
mod identities;
mod limits;

// The rooms, and the hosts that share one.
mod hosts;
mod rooms;
mod upgrade;

// The homeserver: down, faulty, slow, or malicious; and strangers.
mod connections;
mod flood;
mod homeserver_faults;
mod hostile;
mod lost_store;
mod malformed_keys;
mod secrets;
mod sending;
mod threat_model;
mod unreadable_events;

// How the bot logs in, and as what it runs.
mod login;
mod service;
mod without_log_in;

// The other commands of the binary; and the real `claude`, on request.
mod check_admin_room;
mod check_claude;
mod check_commanders;
mod check_homeserver;
mod check_host;
mod check_identity;
mod check_registration;
mod command_line;
mod doctor;
mod init;
mod real_claude;
mod service_command;
