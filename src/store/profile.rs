//! AWS profiles: the files that `aws configure` writes.
//!
//! `object_store` does not read them. Static keys, region and endpoint are taken; profiles that are made by a login (SSO),
//! another role or another program are refused with the command that turns them into environment variables.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// What a profile sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) access_key_id: Option<String>,
    pub(super) secret_access_key: Option<String>,
    pub(super) session_token: Option<String>,
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
}

impl Profile {
    /// Reads the profile `name` from the files in their usual places, or where `AWS_SHARED_CREDENTIALS_FILE` and
    /// `AWS_CONFIG_FILE` point. A profile that is not `asked` for by name may be missing.
    ///
    /// # Errors
    /// `Invalid` when it is asked for and missing, or has no static keys.
    pub(super) fn read(name: &str, asked: bool) -> Result<Self> {
        let credentials = contents("AWS_SHARED_CREDENTIALS_FILE", "credentials");
        let config = contents("AWS_CONFIG_FILE", "config");
        Self::parse(name, asked, &credentials, &config)
    }

    fn parse(name: &str, asked: bool, credentials: &str, config: &str) -> Result<Self> {
        let mut values = section(config, |title| {
            title == name && name == "default"
                || title.strip_prefix("profile").is_some_and(|rest| rest.starts_with(' ') && rest.trim() == name)
        });
        let found = section(credentials, |title| title == name);
        if asked && values.is_none() && found.is_none() {
            return Err(Error::invalid(format!("the AWS profile `{name}` does not exist"))
                .hint("`aws configure list-profiles` lists those that do"));
        }
        // The credentials file wins, as for every AWS tool.
        values.get_or_insert_default().extend(found.unwrap_or_default());
        let mut values = values.unwrap_or_default();
        let profile = Self {
            access_key_id: values.remove("aws_access_key_id"),
            secret_access_key: values.remove("aws_secret_access_key"),
            session_token: values.remove("aws_session_token"),
            region: values.remove("region"),
            endpoint: values.remove("endpoint_url"),
        };
        let made_elsewhere = ["sso_session", "sso_start_url", "role_arn", "credential_process", "login_session"]
            .into_iter()
            .find(|key| values.contains_key(*key));
        if let Some(key) = made_elsewhere
            && asked
            && profile.access_key_id.is_none()
        {
            return Err(Error::invalid(format!(
                "the AWS profile `{name}` gets its keys by `{key}`, which is not supported"
            ))
            .hint(format!("run `eval \"$(aws configure export-credentials --profile {name} --format env)\"` before")));
        }
        Ok(profile)
    }
}

fn contents(variable: &str, name: &str) -> String {
    let path =
        std::env::var_os(variable).map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".aws").join(name)));
    path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
}

/// The settings of the sections whose title is wanted; indented lines belong to nested settings and are left out.
fn section(text: &str, wanted: impl Fn(&str) -> bool) -> Option<BTreeMap<String, String>> {
    let mut values: Option<BTreeMap<String, String>> = None;
    let mut inside = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(title) = trimmed.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            inside = wanted(title.trim());
            if inside {
                values.get_or_insert_default();
            }
        } else if inside
            && !line.starts_with([' ', '\t', '#', ';'])
            && let Some((key, value)) = trimmed.split_once('=')
        {
            values.get_or_insert_default().insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "[default]\naws_access_key_id = A\naws_secret_access_key=B\n# c\n[lab]\naws_access_key_id=C\n\
                               aws_secret_access_key=D=\naws_session_token=E\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\n[profile lab]\nregion=ap-southeast-2\ns3 =\n  region = no\n\
                          endpoint_url = http://x\n[profile login]\nsso_session = s\n";

    #[test]
    fn a_profile_is_read_from_both_files() {
        let profile = Profile::parse("lab", true, CREDENTIALS, CONFIG).unwrap();
        assert_eq!(
            profile,
            Profile {
                access_key_id: Some("C".into()),
                secret_access_key: Some("D=".into()),
                session_token: Some("E".into()),
                region: Some("ap-southeast-2".into()),
                endpoint: Some("http://x".into()),
            }
        );
        let profile = Profile::parse("default", false, CREDENTIALS, CONFIG).unwrap();
        assert_eq!((profile.access_key_id.as_deref(), profile.region.as_deref()), (Some("A"), Some("eu-west-1")));
    }

    #[test]
    fn missing_profiles_and_logins_are_refused_when_asked_for() {
        assert_eq!(Profile::parse("default", false, "", "").unwrap(), Profile::default());
        let error = Profile::parse("none", true, CREDENTIALS, CONFIG).unwrap_err();
        assert_eq!(error.message(), "the AWS profile `none` does not exist");
        let error = Profile::parse("login", true, CREDENTIALS, CONFIG).unwrap_err();
        assert!(error.to_string().contains("gets its keys by `sso_session`"), "{error}");
        assert!(error.to_string().contains("export-credentials --profile login"), "{error}");
    }
}
