//! Variables that look like settings and are none.

use clap::Command;

/// What all variables of rerankd begin with.
const PREFIX: &str = "RERANKD_";

/// How different a name may be from the one that was meant, in edits.
const MOST_EDITS: usize = 4;

/// A sentence for each variable of the environment that begins like ours and is read by no command.
pub fn unknown(command: &Command) -> Vec<String> {
    let mut known = Vec::new();
    collect(command, &mut known);
    let mut set: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into()))
        })
        .collect();
    set.sort();
    let unknown = set.iter().filter(|(name, value)| {
        name.starts_with(PREFIX) && !known.contains(name) && !is_of_a_cluster(name, value)
    });
    unknown.map(|(name, _)| sentence(name, &known)).collect()
}

fn sentence(name: &str, known: &[String]) -> String {
    let nearest = known.iter().min_by_key(|known| distance(name, known));
    match nearest.filter(|nearest| distance(name, nearest) <= MOST_EDITS) {
        Some(nearest) => format!("the variable {name} is no setting; is {nearest} meant?"),
        None => format!("the variable {name} is no setting"),
    }
}

/// All variables that commands read.
fn collect(command: &Command, known: &mut Vec<String>) {
    let variables = command.get_arguments().filter_map(clap::Arg::get_env);
    known.extend(variables.map(|name| name.to_string_lossy().into_owned()));
    for command in command.get_subcommands() {
        collect(command, known);
    }
}

/// Whether Kubernetes makes such a variable by itself, for a service called `rerankd` or `rerankd-*`.
fn is_of_a_cluster(name: &str, value: &str) -> bool {
    let is_url = || {
        ["tcp://", "udp://", "sctp://"]
            .iter()
            .any(|scheme| value.starts_with(scheme))
    };
    let parts: Vec<&str> = name.split('_').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        // Who means a setting writes a number.
        || name.ends_with("_PORT") && is_url()
        || parts.windows(3).any(|parts| {
            parts[0] == "PORT" && is_number(&parts[1]) && matches!(parts[2], "TCP" | "UDP" | "SCTP")
        })
}

/// Letters to insert, remove or exchange (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, from) in one.chars().enumerate() {
        let mut corner = row[0];
        row[0] = above + 1;
        for (at, to) in other.iter().enumerate() {
            let exchanged = corner + usize::from(from != *to);
            corner = row[at + 1];
            row[at + 1] = exchanged.min(corner + 1).min(row[at] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_named_if_one_is_near() {
        let known = ["RERANKD_LISTEN".to_owned(), "RERANKD_LOG".to_owned()];
        let said = |name| sentence(name, &known);
        assert!(said("RERANKD_LISTNE").ends_with("is RERANKD_LISTEN meant?"));
        assert!(said("RERANKD_LOGS").ends_with("is RERANKD_LOG meant?"));
        assert!(said("RERANKD_SOMETHING_ELSE").ends_with("is no setting"));
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn what_a_cluster_makes_is_no_mistake() {
        for (name, value) in [
            ("RERANKD_SERVICE_HOST", "10.0.0.1"),
            ("RERANKD_SERVICE_PORT", "9500"),
            ("RERANKD_SERVICE_PORT_HTTP", "9500"),
            ("RERANKD_PORT", "tcp://10.0.0.1:9500"),
            ("RERANKD_ADMIN_PORT", "sctp://10.0.0.1:9600"),
            ("RERANKD_PORT_9500_TCP_ADDR", "10.0.0.1"),
            ("RERANKD_ADMIN_PORT_9600_TCP", "tcp://10.0.0.1:9600"),
        ] {
            assert!(is_of_a_cluster(name, value), "{name}");
        }
        for (name, value) in [
            ("RERANKD_LISTNE", "tcp://10.0.0.1:9500"),
            ("RERANKD_PORT", "8080"),
            ("RERANKD_ADMIN_PORT", ""),
        ] {
            assert!(!is_of_a_cluster(name, value), "{name}");
        }
    }
}
