//! Named places in the two towers whose states can be taken out.

use crate::config::ModelConfig;
use crate::error::VlmError;
use strsim::osa_distance;

/// A place in a tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// After the tower's last layer norm: `vision.post_ln` (input of the pooling head), `text.final_ln`.
    Final,
    /// The residual stream after block N, counted from 0: `vision.block:N`, `text.block:N`.
    Block(usize),
}

/// Which tower a hook belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tower {
    /// Image patches.
    Vision,
    /// Caption tokens.
    Text,
}

/// Default hook of the image tower.
pub const VISION_DEFAULT: &str = "vision.post_ln";
/// Default hook of the text tower.
pub const TEXT_DEFAULT: &str = "text.final_ln";

/// All hook names of a model, image tower first, defaults first.
pub fn hook_names(config: &ModelConfig) -> Vec<String> {
    let blocks = |tower: &str, n: usize| (0..n).map(move |i| format!("{tower}.block:{i}")).collect::<Vec<_>>();
    let mut names = vec![VISION_DEFAULT.to_string()];
    names.extend(blocks("vision", config.vision_config.num_hidden_layers));
    names.push(TEXT_DEFAULT.into());
    names.extend(blocks("text", config.text_config.num_hidden_layers));
    names
}

/// Finds a hook by name.
///
/// # Errors
/// `E_HOOK` with the nearest valid names.
pub fn find_hook(config: &ModelConfig, name: &str) -> Result<(Tower, Hook), VlmError> {
    let names = hook_names(config);
    if !names.iter().any(|n| n == name) {
        let mut nearest = names;
        nearest.sort_by_key(|n| osa_distance(n, name));
        nearest.truncate(3);
        return Err(VlmError::Hook { found: name.into(), nearest });
    }
    let tower = if name.starts_with("vision.") { Tower::Vision } else { Tower::Text };
    let hook = name.split_once(":").and_then(|(_, index)| index.parse().ok()).map_or(Hook::Final, Hook::Block);
    Ok((tower, hook))
}

/// Finds a hook that must belong to `tower`.
///
/// # Errors
/// `E_HOOK` with the nearest names of that tower.
pub fn find_hook_of(config: &ModelConfig, tower: Tower, name: &str) -> Result<Hook, VlmError> {
    let prefix = if tower == Tower::Vision { "vision." } else { "text." };
    match find_hook(config, name) {
        Ok((found, hook)) if found == tower => Ok(hook),
        _ => {
            let mut nearest = hook_names(config);
            nearest.retain(|n| n.starts_with(prefix));
            nearest.sort_by_key(|n| osa_distance(n, name));
            nearest.truncate(3);
            Err(VlmError::Hook { found: name.into(), nearest })
        }
    }
}
