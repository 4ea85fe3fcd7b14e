// Package packages tests what "make packages" builds, as an administrator meets it:
// deb and rpm are installed, upgraded under load, downgraded and removed in a system
// with a real systemd.
//
// It has no code but tests. They need root, systemd, dpkg and rpm.
package packages
