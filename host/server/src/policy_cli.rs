//! `rerankd policy ..`: write, test and release policies.
//!
//! [`args`] are the flags. `new`, `build`, `check` and `test` work offline: `project` writes the files
//! of a project, `build` compiles one, `offline` checks and tests a component. The rest are calls to
//! the admin plane of a server: `client` is the way there, `release` and `events` the commands, and
//! `warm` (with `warm_source`), which is `rerankd warm`.
//! Each comes to an `Outcome` or a `Failure`, which are printed here and nowhere
//! else; `events` alone prints as they come. All of it goes by [`terminal`].

pub mod args;
mod build;
mod client;
mod events;
mod offline;
mod outcome;
mod project;
mod release;
mod scratch;
mod warm;
mod warm_source;

use std::process::ExitCode;

use self::args::{PolicyArgs, PolicyCommand, WarmArgs};
use self::outcome::{Failure, Outcome};
pub(crate) use self::scratch::Scratch;
use crate::terminal;

/// Runs a command and prints what came of it.
pub fn run(arguments: PolicyArgs) -> ExitCode {
    let json = arguments.json;
    let result = match arguments.command {
        PolicyCommand::New(flags) => project::new(&flags),
        PolicyCommand::Build(flags) => build::build(&flags),
        PolicyCommand::Check(flags) => offline::check(&flags),
        PolicyCommand::Test(flags) => offline::test(&flags),
        PolicyCommand::Push(flags) => release::push(&flags),
        PolicyCommand::List(flags) => release::list(&flags),
        PolicyCommand::Activate(flags) => release::activate(&flags),
        PolicyCommand::Rollback(flags) => release::rollback(&flags),
        PolicyCommand::Canary(flags) => release::canary(&flags),
        PolicyCommand::Shadow(flags) => release::shadow(&flags),
        PolicyCommand::Delete(flags) => release::delete(&flags),
        PolicyCommand::Events(flags) => events::events(&flags, json),
    };
    finish(result, json)
}

/// Runs `rerankd warm` and prints what came of it.
pub fn warm(arguments: &WarmArgs) -> ExitCode {
    finish(warm::warm(arguments), arguments.json)
}

fn finish(result: Result<Outcome, Failure>, json: bool) -> ExitCode {
    match result {
        Ok(Outcome {
            good,
            text,
            json: value,
        }) => {
            // Null is what was printed already.
            print(&match json {
                true if value.is_null() => String::new(),
                true => format!("{value}\n"),
                false => text,
            });
            ExitCode::from(u8::from(!good))
        }
        Err(failure) => {
            if json {
                print(&format!("{}\n", failure.json()));
            }
            terminal::warn(&format!("rerankd: {}", failure.message()));
            ExitCode::from(failure.exit_code())
        }
    }
}

/// To standard output, which nobody need read.
fn print(text: &str) {
    let _ = terminal::print(text);
}
