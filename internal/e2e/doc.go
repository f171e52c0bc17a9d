// Package e2e proves kemi against real servers. Its tests start them on loopback,
// in temporary directories, as children that die with the test; a server that is
// not installed skips its tests with the name of the package to install, or fails
// them where KEMI_E2E=required is set, as CI does.
//
// Those that run in Java (Kafka, HBase, OpenTSDB) take seconds to start and hundreds
// of megabytes, so their tests run only where KEMI_E2E is set, to 1 or to required.
// They need Debian's openjdk-17-jdk-headless and maven: the first run fetches the
// jars into the user's cache (XDG_CACHE_HOME/kemi-e2e), later ones need no network
// and a Java runtime alone.
//
//	KEMI_E2E=1 go test -v ./internal/e2e
//
// TestFaultsOfMembersShowNowhere goes through two rounds of faults, and with
// KEMI_FAULTS=all through twenty, which takes six minutes.
//
// To test something else on a Kafka or an OpenTSDB, begin with startKafka, startHBase
// and startOpenTSDB.
package e2e
