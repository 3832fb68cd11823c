// Package config holds every setting of AgentCube in one [Config].
//
// Use it in four steps: [New] gives the defaults, [Config.BindFlags] offers the
// settings as command-line flags, [Config.Load] after the command line was
// parsed adds the configuration file and the environment, [Config.Validate]
// lists everything that is wrong. A flag wins over the environment, the
// environment over the file, the file over the default; [Config.Settings] says
// of each value where it came from.
//
// A setting has one name in three spellings: "dataDir" in the file,
// AGENTCUBE_DATA_DIR in the environment, --data-dir on the command line.
//
// No other package of AgentCube reads environment variables.
package config
