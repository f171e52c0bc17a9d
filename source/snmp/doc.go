// Package snmp polls hosts by SNMP, versions 2c and 3.
//
// A [Poller] is a kemi.Transform: jobs go in, one for each host and cycle, and the
// metrics of each host come out, all with one time. It is made for thousands of hosts
// behind a few sockets:
//
//   - Apply starts all jobs of a batch at once and waits for them a moment
//     ([Config].Patience). What is not ready then comes with a later Apply or Tick, so
//     that a dead or slow host holds up nobody.
//   - A host is asked for its scalars first. If it does not answer, nothing else is
//     sent: a dead host costs two datagrams a cycle, and one after three cycles.
//   - Tables are walked seldom and read by their known rows in between, which makes
//     three requests of a poll of a Linux host, and little work for its agent.
//   - What arrived before the deadline is given out, and the rest is told: up,
//     snmp_failure{reason}, snmp_complete_ratio, snmp_poll_seconds.
//
// A host that takes a little longer than the patience, as one far away does at its first
// polls, is a straggler too: its metrics wait for the next job or tick of its lane. Ticks
// come once a second; give the flow kemi.TickEvery(100*time.Millisecond) to have them
// sooner:
//
//	kemi.Pipe("poll", jobs, poller, metrics, kemi.TickEvery(100*time.Millisecond))
//
// What to ask for is a [Profile]; [Linux] is built in. How to be let in is a
// [Credential], which jobs name and never hold.
//
// # Metrics of every poll
//
// up is 1 if the host answered and 0 if not. snmp_failure is 1 with a label reason, and
// only there when something is missing. The reasons are:
//
//	timeout       no answer
//	refused       an ICMP message said that nobody listens on the port (Linux)
//	unreachable   no way to the host, or its name does not resolve
//	auth          the authentication passphrase, protocol or security level is wrong,
//	              or answers were not authentic
//	priv          the privacy passphrase or protocol is wrong
//	unknown_user  the agent does not know the user
//	time_window   the agent's clock and ours could not be brought together
//	decode        answers came, but none that makes sense
//	deadline      the time for this host was up; what came before it is there
//	error_status  the agent answered some of the request with an error
//	truncated     a table did not end, went backwards or was too large
//	config        the job can never be polled: an unknown credential or profile, or no target
//	panic         a function of a profile panicked; the log has the stack
//
// A wrong community and, with many agents, a wrong privacy passphrase are met with
// silence: timeout.
//
// snmp_complete_ratio is the part of what was asked for that was answered, where "there
// is no such object" is an answer. snmp_poll_seconds, snmp_rtt_seconds (of the first
// answer), snmp_pdus (requests answered) and snmp_retries say what the poll cost.
// agent_uptime_seconds is sysUpTime. All of them are gauges.
package snmp
