//! What the hub's refusals mean, and what to do about each.

use crate::error::VlmError;
use crate::hub::http::{Answer, Http, download_error};
use crate::hub::name::Repo;

/// The error of an answer that is neither a success nor worth another attempt. `file` is the one asked for, if any.
pub(super) fn refusal(http: &Http, answer: &Answer, repo: &Repo, file: Option<&str>) -> VlmError {
    let status = answer.response.status();
    let code = answer.header("x-error-code").unwrap_or_default();
    let what = file.map_or_else(|| repo.full(), |file| format!("{file} of {}", repo.full()));
    let page = http.url(&repo.id.split('/').collect::<Vec<_>>());
    let name = |found: String, expected: &str, fix: String| VlmError::Name {
        name: repo.full(),
        found,
        expected: expected.into(),
        fix,
    };
    let token = if http.has_token() { "the token in use may not read it" } else { "HF_TOKEN is not set" };
    match (status.as_u16(), code) {
        (401 | 403, "GatedRepo") => download_error(
            &what,
            format!("the model is gated ({status}), and {token}"),
            "a token of an account that has accepted the licence",
            &format!("accept the licence at {page}, make a token in the account's settings, and set HF_TOKEN to it"),
        ),
        // Without a token the hub does not tell a private repository from none at all.
        (401 | 404, "RepoNotFound") => name(
            format!("no such repository on {}, or it is private ({status}); {token}", http.host()),
            "a repository that can be read",
            format!("check the spelling at {page} (no such folder exists here either); if it is private, set HF_TOKEN"),
        ),
        (404, "RevisionNotFound") => name(
            format!("the repository has no revision {:?}", repo.revision),
            "a branch, a tag or a commit",
            format!("see {page}/commits for its revisions, or leave out @{}", repo.revision),
        ),
        (401 | 403, _) => download_error(
            &what,
            format!("the server answers {status}, and {token}"),
            "a token that may read it",
            &format!(
                "set HF_TOKEN to a token that may read {}; if its licence has to be accepted, do so at {page}",
                repo.id
            ),
        ),
        (404, _) if file.is_none() => name(
            format!("repository or revision not found on {}", http.host()),
            "a repository and revision that exist",
            format!("check the spelling at {page} (no such folder exists here either); if it is private, set HF_TOKEN"),
        ),
        _ => download_error(
            &what,
            format!("the server answers {status}"),
            "the file",
            "try again later, and check HF_ENDPOINT and the proxy",
        ),
    }
}
