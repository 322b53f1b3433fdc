//! The real bot on a real Synapse, a file per promise.
//!
//! One binary, because each further one links the whole SDK again. The homeserver is installed and started by the first test
//! that needs it; every test has users, a bot and folders of its own.
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

/// What the other modules stand on.
mod support;

/// Start, status and stop, from the command to the link in the direct message.
mod main_job;

/// What people see of a start besides its link.
mod messages;

/// Who may command, and which events are commands.
mod authorization;

/// What comes of an edit, and of what cannot be decrypted.
mod edits;

/// What makes a room fit to be the admin room.
mod admin_room;

/// How the admin room becomes another one, and how not.
mod upgrade;

/// The rooms besides the admin room: invitations, and what is said there.
mod rooms;

/// What stands in the audit log.
mod audit;

/// Pinned identities: those that change, and who accepts that.
mod identities;

/// What a session printed, shown once or for a while.
mod logs;

/// What rings for those who have a link.
mod notifications;

/// Thousands of messages at once.
mod flood;

/// How often somebody may command, and how many sessions there may be.
mod limits;

/// Several hosts whose bots share an admin room.
mod hosts;

/// Projects that are found below a root.
mod project_roots;

/// What a start may ask for.
mod options;

/// To whom a link goes, and into what room.
mod delivery;

/// What a device is worth: signed by its owner, not signed, or gone.
mod devices;

/// What becomes of a direct message between two links.
mod direct_message;

/// An admin room that is not encrypted, under each setting, and one that is.
mod encrypted_commands;

/// What the bot remembers, and what it gets over when it is lost.
mod lost_store;

/// A homeserver that is down, slow, or in trouble.
mod homeserver_faults;

/// What is sent: once, in turn, and known to the next run of the bot.
mod sending;

/// On how few connections.
mod connections;

/// A homeserver that plays false.
mod hostile;

/// Public keys that are no keys.
mod malformed_keys;

/// Against whom the bot stands, a test for each of them.
mod threat_model;

/// What people are told when something goes wrong.
mod failures;

/// An account that exists already, with its password or a token.
mod login;

/// A homeserver that logs in no appservice.
mod without_log_in;

/// Bad configurations, wrong arguments, and registrations.
mod command_line;

/// The first configuration and registration, by questions or flags.
mod init;

/// Whether `rcbot check` finds what is wrong on the host.
mod check_host;

/// Whether `rcbot check` finds what `claude` was not told.
mod check_claude;

/// Whether `rcbot check` finds what is wrong with the homeserver, or between it and the bot.
mod check_homeserver;

/// Whether `rcbot check` finds what is wrong with the bot's own identity.
mod check_identity;

/// Whether `rcbot check` tells how a bot logs in, and finds what is wrong with its password or token.
mod check_account;

/// Whether `rcbot check` finds what is wrong with the admin room.
mod check_admin_room;

/// What `rcbot check` says of the registration that the homeserver has.
mod check_registration;

/// Whether `rcbot check` looks at the admin room that counts, and at the hosts that share it.
mod check_which_room;

/// Whether `rcbot check` finds what is wrong with those who may command.
mod check_commanders;

/// Whether people get the report that the host would get.
mod doctor;

/// Where secrets are not.
mod secrets;

/// What systemd and its journal are told, and the units.
mod service;

/// `rcbot service`, and what the binary prints about itself.
mod service_command;

/// What a session and its link go through when the bot ends.
mod restart;

/// How a session begins, lasts and comes back, and what the operator does.
mod life_span;

/// The real `claude`, if it is wanted.
mod real_claude;

/// The support itself: two clients understand one another.
mod smoke;
