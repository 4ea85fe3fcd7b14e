package units

import (
	"fmt"
	"os/user"
	"strconv"
)

// driftOfUser compares the user and the group.
func driftOfUser(u loaded, p process) Finding {
	const name = "user"
	status, err := p.status()
	if err != nil {
		return unseen(name, err)
	}
	uid, gid := status["Uid"], status["Gid"] // the real ones
	differ := func(setting, want, have string) Finding {
		return Finding{name, FindingWarning, fmt.Sprintf("%s says %s=%s, process %d runs as %s", u.name, setting, want, p, have), hintRestart}
	}
	wantUser, wantGroup := u.values["User"], u.values["Group"]
	// The UID property is what it was at the start, from then on.
	switch want, err := userID(wantUser); {
	case u.values["DynamicUser"] == "yes":
		if !isDynamic(uid) && uid != want {
			return differ("DynamicUser", "yes", userName(uid))
		}
		return Finding{name, FindingOK, fmt.Sprintf("process %d runs as a dynamic user, %s", p, uid), ""}
	case err != nil:
		return Finding{name, FindingWarning, fmt.Sprintf("%s says User=%s: %v", u.name, wantUser, err), "a restart would fail"}
	case want == "" && u.values["UID"] == uid && uid != "0":
		return differ("User", "", userName(uid))
	case want != "" && want != uid:
		return differ("User", wantUser, userName(uid))
	}
	switch want, err := groupID(wantGroup); {
	case err != nil:
		return Finding{name, FindingWarning, fmt.Sprintf("%s says Group=%s: %v", u.name, wantGroup, err), "a restart would fail"}
	case want != "" && want != gid:
		return differ("Group", wantGroup, groupName(gid))
	}
	return Finding{name, FindingOK, fmt.Sprintf("process %d runs as %s, as %s says", p, userName(uid), u.name), ""}
}

// userID returns the number of a user, or "" of "".
func userID(name string) (string, error) {
	if _, err := strconv.ParseUint(name, 10, 32); name == "" || err == nil {
		return name, nil
	}
	found, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return found.Uid, nil
}

// groupID returns the number of a group, or "" of "".
func groupID(name string) (string, error) {
	if _, err := strconv.ParseUint(name, 10, 32); name == "" || err == nil {
		return name, nil
	}
	found, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return found.Gid, nil
}

func userName(uid string) string {
	if found, err := user.LookupId(uid); err == nil {
		return found.Username
	}
	return uid
}

func groupName(gid string) string {
	if found, err := user.LookupGroupId(gid); err == nil {
		return found.Name
	}
	return gid
}

// isDynamic reports whether uid is one of those that DynamicUser= takes:
// systemd.exec(5).
func isDynamic(uid string) bool {
	n, err := strconv.Atoi(uid)
	return err == nil && n >= 61184 && n <= 65519
}
