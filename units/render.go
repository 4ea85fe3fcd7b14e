package units

import (
	"bytes"
	"embed"
	"fmt"
	"strconv"
	"text/template"
)

//go:embed templates
var templates embed.FS

// The variables that package upgrade reads.
const (
	envReadyTimeout  = "HANDOFF_READY_TIMEOUT"
	envProbation     = "HANDOFF_PROBATION"
	envDrainTimeout  = "HANDOFF_DRAIN_TIMEOUT"
	envStopTimeout   = "HANDOFF_STOP_TIMEOUT"
	envMaxDraining   = "HANDOFF_MAX_DRAINING"
	envOperatorGroup = "HANDOFF_OPERATOR_GROUP"
)

// Render returns the contents of the unit files by file name. The same Service
// gives the same bytes. It fails if [Service.Validate] does.
func (s Service) Render() (map[string][]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	s = s.withDefaults()
	t, err := template.ParseFS(templates, "templates/*.tmpl")
	if err != nil {
		return nil, fmt.Errorf("parse the templates: %w", err)
	}
	files := make(map[string][]byte)
	render := func(file, name string, data any) error {
		var b bytes.Buffer
		if err := t.ExecuteTemplate(&b, name, data); err != nil {
			return fmt.Errorf("render %s: %w", file, err)
		}
		files[file] = b.Bytes()
		return nil
	}
	if err := render(s.UnitName(), "service.tmpl", s.serviceView()); err != nil {
		return nil, err
	}
	for i := range s.Sockets {
		if err := render(s.SocketUnitName(i), "socket.tmpl", s.socketView(i)); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// serviceView is what service.tmpl needs: everything is quoted already, so that
// the template has no logic to get wrong.
type serviceView struct {
	Service
	Systemctl    string
	Hdctl        string // as to be typed
	Description  string
	SocketUnits  []string
	ExecStart    string
	ExecReload   string
	ExecStop     string
	Environment  []string // of the author
	Options      []option
	TimeoutStart string
	TimeoutStop  string
	Watchdog     string
	Target       string
}

// option is one HANDOFF_* variable.
type option struct{ Comment, Assignment string }

func (s Service) serviceView() serviceView {
	v := serviceView{
		Service:      s,
		Systemctl:    "systemctl",
		Hdctl:        "hdctl",
		Description:  percent(s.Description),
		ExecStart:    command(s.Exec, s.Args...),
		TimeoutStart: span(s.timeoutStart()),
		TimeoutStop:  span(s.timeoutStop()),
		Target:       "multi-user.target",
	}
	reload := []string{"upgrade", "--queue", s.Name}
	if s.UserManager {
		v.Systemctl, v.Hdctl = "systemctl --user", "hdctl --user"
		v.Target = "default.target"
		reload = append([]string{"--user"}, reload...)
	}
	v.ExecReload = command(s.Hdctl, reload...)
	v.ExecStop = command(s.Hdctl, "exec-stop")
	for i := range s.Sockets {
		v.SocketUnits = append(v.SocketUnits, s.SocketUnitName(i))
	}
	if s.Watchdog > 0 {
		v.Watchdog = span(s.Watchdog)
	}
	for _, e := range s.Environment {
		v.Environment = append(v.Environment, assignment(e))
	}
	option := func(comment, name, value string) option {
		return option{comment, assignment(Variable{name, value})}
	}
	v.Options = append(v.Options,
		option("A new version must be ready within this time, or the old one goes on.", envReadyTimeout, goDuration(s.ReadyTimeout)),
		option("Then the old version stands by for this time, and takes over again if the new one dies.", envProbation, goDuration(s.Probation)),
		option("Then the old version may take this time to finish its open connections.", envDrainTimeout, goDuration(s.DrainTimeout)),
		option("So many old versions may be at that at the same time.", envMaxDraining, strconv.Itoa(s.MaxDraining)),
		option("When the service stops, open connections may take this time.", envStopTimeout, goDuration(s.StopTimeout)),
	)
	if s.OperatorGroup != "" {
		v.Options = append(v.Options, option("Members of this group may upgrade the service.", envOperatorGroup, s.OperatorGroup))
	}
	return v
}

// socketView is what socket.tmpl needs.
type socketView struct {
	Socket
	Systemctl   string
	Unit        string
	Service     string // its unit
	Description string
	Listen      []string
	File        bool
	Mode        string
}

func (s Service) socketView(i int) socketView {
	sock := s.Sockets[i]
	v := socketView{
		Socket:      sock,
		Systemctl:   "systemctl",
		Unit:        s.SocketUnitName(i),
		Service:     s.UnitName(),
		Description: percent(s.Description) + ": socket " + sock.Name,
	}
	if s.UserManager {
		v.Systemctl = "systemctl --user"
	}
	if sock.Mode != 0 {
		v.Mode = fmt.Sprintf("%04o", sock.Mode)
	}
	for _, l := range sock.Listen {
		v.Listen = append(v.Listen, fmt.Sprintf("Listen%v=%s", l.Kind, percent(l.Address)))
		v.File = v.File || l.file()
	}
	return v
}
