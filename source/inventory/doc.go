// Package inventory is the source of jobs: it reads which hosts there are, and says
// for each of them, once every interval, that it is time to poll it.
//
// A [Discoverer] tells the hosts: [Files] and [HTTP] read lists in the format that
// Prometheus calls file_sd and http_sd, [Static] holds a list written in code, and
// anything else is one method. The list is read again every cycle, so that a host
// added to it is polled from the next cycle on, and one removed no more.
//
// A list that cannot be read, is empty, or has lost more than half of its hosts since
// the last one does not stop the watching of what was there: the last good list stays
// in use, and the refusal is logged and counted. See [Config].MaxShrink for how to accept it.
//
// # The format
//
// A list is JSON or YAML: groups of targets with labels.
//
//	# YAML
//	- targets: [10.0.0.1, "10.0.0.2:1161"]
//	  labels: {service: shop, rack: r7}
//	- targets: [10.0.0.3]
//	  labels: {host: db1, __auth__: dbteam, __profiles__: "linux,disks", __interval__: 10s}
//
// A target is a host or host:port. Its labels go on every metric, but for these:
//
//	host          the resource: the host label of every metric; default: the target without its port
//	service       the service that the host belongs to
//	__profiles__  names of profiles, separated by commas; default Config.Profiles
//	__auth__      name of a credential, never the credential itself; default Config.Auth
//	__interval__  a duration such as 10s or 5m; default Config.Interval
//
// Any other label that begins with __ is dropped, as Prometheus does after relabelling.
// A resource is polled once: of several targets with one resource the first counts,
// and the others are logged and counted.
package inventory
