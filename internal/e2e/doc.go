// Package e2e proves kemi against real servers. Its tests start them on loopback,
// in temporary directories, as children that die with the test; a server that is
// not installed skips its tests with the name of the package to install, or fails
// them where KEMI_E2E=required is set, as CI does.
package e2e
